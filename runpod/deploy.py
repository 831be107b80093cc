"""`./build.sh deploy`: shows what would change on RunPod and Upstash, does it, waits, and prints the app's `.env`.

Run by path. The same command again changes nothing; an interrupted one is finished by the next.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from account import API_URL, EmptyAccount, RunpodAccount, jobs_url
from costs import cost_page
from definitions import FOLDER, load_deployment
from failures import DeployError, MissingSettings
from gpu_places import gpu_warning
from http_calls import Http
from inbox_token import RIGHTS as TOKEN_RIGHTS
from inbox_token import Upstash
from plan import NEW, Order, State, data_center, describe, endpoint_steps, read_state, volume_step
from readiness import Readiness
from rollout import Rollout
from schedule import QSTASH_URL, cron_line, set_schedule
from service_env import KEY, faults, is_secret, read_env_file
from terminal import Terminal

READY_LIMIT_S = 2700.0
REDIS_URL, REDIS_TOKEN = "UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"
BATCH = "batch-api"


def main(arguments: Sequence[str], environment: Mapping[str, str], terminal: Terminal) -> int:
    """The exit code: 0 done, 1 a platform refused or is not ready, 2 something is missing or wrong."""
    options = parse(arguments)
    try:
        if options.costs:
            terminal.say(cost_page())
            return 0
        return _deploy(options, _whole_environment(options, environment), terminal)
    except MissingSettings as error:
        terminal.warn(f"deploy: {error}")
        return 2
    except DeployError as error:
        terminal.warn(f"deploy: {error}")
        return 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./build.sh deploy", description="Bring the service to RunPod.")
    add = parser.add_argument
    add(
        "--dry-run",
        action="store_true",
        help="only show the plan (without RUNPOD_API_KEY: of an empty account)",
    )
    add("--yes", action="store_true", help="apply without asking")
    add("--registry", help="where the images are, e.g. docker.io/you (else $REGISTRY)")
    add("--tag", help="their tag (else $TAG)")
    add("--variant", action="append", default=[], metavar="ENDPOINT=NAME", help="e.g. llama=awq")
    add("--only", action="append", default=[], metavar="ENDPOINT", help="touch this endpoint only")
    add("--data-center", help="of the network volume, when it is created")
    add("--env-file", type=Path, help="NAME=VALUE lines (else .env, if it is there); the shell's values win")
    add("--rotate-webhook-token", action="store_true", help="replace the token that webhooks carry")
    add("--wait-s", type=float, default=READY_LIMIT_S, help="how long to wait for workers (0: not at all)")
    add("--costs", action="store_true", help="print what it costs, and nothing else")
    return parser.parse_args(arguments)


def _whole_environment(options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, str]:
    path = options.env_file or FOLDER.parent / ".env"
    if not path.exists():
        if options.env_file:
            raise MissingSettings(f"there is no file {path}")
        return dict(environment)
    return {**read_env_file(path), **environment}


def _deploy(options: argparse.Namespace, environment: Mapping[str, str], terminal: Terminal) -> int:
    for name, value in environment.items():
        if is_secret(name):
            terminal.hide(value)
    order = _order(options, environment)
    missing = _missing(order)
    if missing and not options.dry_run:
        raise MissingSettings("\n  - ".join(["these are missing or wrong:", *missing]))
    with ExitStack() as stack:
        clients = _connect(environment, terminal, stack)
        state = read_state(clients.account or EmptyAccount(), order)
        for secret in state.secrets():
            terminal.hide(secret)
        if clients.upstash and not options.rotate_webhook_token:
            token = clients.upstash.working(state.known_tokens(environment))
            state = replace(state, webhook_token=token)
        changes = _show(order, state, terminal)
        if clients.account and (
            lack := gpu_warning(clients.account, order.deployment, data_center(order, state))
        ):
            terminal.warn(f"warning: {lack}")
        if options.dry_run:
            _warn_of_missing(missing, terminal)
            return 0
        if changes and not options.yes and not _agreed(terminal):
            terminal.say("nothing was changed")
            return 0
        state = _apply(order, state, clients, terminal)
        _wait(options.wait_s, order, state, terminal)
        return 0


@dataclass(frozen=True)
class Clients:
    """None where the variables for it are not set (a dry run needs neither)."""

    account: RunpodAccount | None
    upstash: Upstash | None


def _connect(environment: Mapping[str, str], terminal: Terminal, stack: ExitStack) -> Clients:
    def http(platform: str, url: str, token: str) -> Http:
        client = Http(platform, url, token, terminal.pause)
        stack.callback(client.close)
        return client

    account = upstash = None
    if key := environment.get(KEY):
        account = RunpodAccount(http("RunPod", environment.get("RUNPOD_API_URL", API_URL), key))
    if (url := environment.get(REDIS_URL)) and (token := environment.get(REDIS_TOKEN)):
        upstash = Upstash(token, partial(http, "Upstash", url))
    return Clients(account, upstash)


def _order(options: argparse.Namespace, environment: Mapping[str, str]) -> Order:
    pairs = [text.partition("=") for text in options.variant]
    deployment = load_deployment({endpoint: name for endpoint, _, name in pairs})
    if options.only and options.rotate_webhook_token:
        raise MissingSettings("a new token must reach all endpoints: leave --only out")
    if unknown := set(options.only) - set(deployment.endpoints):
        raise MissingSettings(
            f"--only {', '.join(sorted(unknown))}: there are {', '.join(deployment.endpoints)}"
        )
    registry = options.registry or environment.get("REGISTRY", "")
    return Order(
        deployment,
        environment,
        image_prefix=f"{registry.rstrip('/')}/" if registry else "",
        tag=options.tag or environment.get("TAG", ""),
        data_center=options.data_center,
        only=frozenset(options.only),
    )


def _missing(order: Order) -> list[str]:
    missing = faults(order.environment, order.deployment)
    if not order.image_prefix:
        missing.append("REGISTRY (or --registry) is required: where the images were pushed")
    if not order.tag:
        missing.append("TAG (or --tag) is required: what the images were pushed as")
    return missing


def _show(order: Order, state: State, terminal: Terminal) -> bool:
    """Prints the plan; whether it changes anything."""
    expected = state if state.webhook_token else replace(state, webhook_token=NEW)
    volume, endpoints = volume_step(order, state), endpoint_steps(order, expected)
    for line in describe(volume):
        terminal.say(line)
    terminal.say(f"{'leave' if state.webhook_token else 'create':<7} token     {TOKEN_RIGHTS}")
    for step in endpoints:
        for line in describe(step):
            terminal.say(line)
    return not state.webhook_token or any(step.verb != "leave" for step in (volume, *endpoints))


def _warn_of_missing(missing: Sequence[str], terminal: Terminal) -> None:
    if missing:
        terminal.warn("\n  - ".join(["to apply this, set:", *missing]))


def _agreed(terminal: Terminal) -> bool:
    if terminal.ask is None:
        raise MissingSettings("this is no terminal to ask at: add --yes, or look with --dry-run")
    return terminal.ask("Apply? [y/N] ").strip().lower() in ("y", "yes")


def _apply(order: Order, state: State, clients: Clients, terminal: Terminal) -> State:
    # What they need is required, and was checked.
    assert clients.account  # noqa: S101
    assert clients.upstash  # noqa: S101
    rollout = Rollout(order, clients.account, clients.upstash, terminal.say, terminal.hide)
    state = rollout.apply(state)
    _schedule(order, state, terminal)
    _print_app_settings(state, terminal)
    return state


def _wait(limit_s: float, order: Order, state: State, terminal: Terminal) -> None:
    if limit_s <= 0:
        return
    key = order.environment[KEY]
    readiness = Readiness(
        lambda url: Http("RunPod", url, key, terminal.pause), terminal.say, terminal.pause, terminal.clock
    )
    readiness.wait(
        {name: found for name, found in state.endpoints.items() if found and order.touches(name)}, limit_s
    )
    terminal.say("ready")


def _schedule(order: Order, state: State, terminal: Terminal) -> None:
    batch = state.endpoints[BATCH]
    if batch is None:
        return
    environment, schedule = order.environment, order.deployment.schedule
    token = environment.get("QSTASH_TOKEN", "")
    if not token:
        terminal.say(
            "\nFor batches that nobody polls, add this to a crontab (or set QSTASH_TOKEN and run again):"
        )
        terminal.say(cron_line(schedule, jobs_url(batch)))
        return
    http = Http("QStash", environment.get("QSTASH_URL", QSTASH_URL), token, terminal.pause)
    try:
        set_schedule(http, schedule, jobs_url(batch), environment[KEY])
    finally:
        http.close()
    terminal.say(f"set the schedule {schedule.id} at QStash: {schedule.cron}")


def _print_app_settings(state: State, terminal: Terminal) -> None:
    """The Node app's lines. The key stays a reference: it is not the terminal's to show."""
    batch = state.endpoints[BATCH]
    if batch is not None:
        terminal.say("\nFor the app's .env:")
        terminal.say(f"LOCAL_BATCH_URL={jobs_url(batch)}")
        terminal.say("RUNPOD_API_KEY=$RUNPOD_API_KEY\n")


if __name__ == "__main__":
    asker = input if sys.stdin.isatty() and sys.stdout.isatty() else None
    try:
        sys.exit(main(sys.argv[1:], os.environ, Terminal(sys.stdout, sys.stderr, asker)))
    except KeyboardInterrupt:
        sys.exit(130)
