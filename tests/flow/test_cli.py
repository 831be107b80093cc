"""The command line `llm-batch` as it is built, against the service."""

import asyncio
import json
import os
import pty
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from capacity import load_hardware
from costs import Offer, offers
from definitions import load_deployment, read_json

from shared.adapters.upstash import Upstash
from shared.core.routing import DEFAULT_STAGES
from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud, eventually, faults, keys_in
from tests.local_cloud.cloud import REPOSITORY

ADAPTER = REPOSITORY / "node-adapter"
PROGRAM = ADAPTER / "dist" / "esm" / "cli" / "main.js"
# No test waits so long; one that hangs fails with what the program said.
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Cli:
    """Runs the program against one batch endpoint."""

    url: str
    key: str

    async def start(self, *words: str, **options: Any) -> asyncio.subprocess.Process:
        env = {
            **os.environ,
            "LOCAL_BATCH_URL": self.url,
            "RUNPOD_API_KEY": self.key,
        }
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        return await asyncio.create_subprocess_exec(
            "node", str(PROGRAM), *words, env=env, cwd=REPOSITORY, **{**pipes, **options}
        )

    async def __call__(self, *words: str, stdin: str = "") -> Ran:
        process = await self.start(*words)
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        assert self.key not in out.decode() + err.decode()
        return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture(scope="session", autouse=True)
def built_adapter() -> None:
    if not PROGRAM.exists():
        subprocess.run(["npm", "run", "build"], cwd=ADAPTER, check=True)


@pytest.fixture
def cli(cloud: FlowCloud) -> Cli:
    return Cli(cloud.address["batch_url"], cloud.address["api_key"])


def write_lines(path: Path, lines: Sequence[object]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(request: dict[str, Any]) -> dict[str, Any]:
    return {
        **request,
        "params": {**request["params"], "messages": [{"role": "user", "content": "[[error]]"}]},
    }


async def test_submit_watches_and_writes_the_results(cli: Cli, tmp_path: Path) -> None:
    requests = make_requests(40)
    file, out = write_lines(tmp_path / "in.jsonl", requests), tmp_path / "out.jsonl"
    ran = await cli("submit", file, "--stage", "email", "--watch", "-o", str(out))
    assert ran.code == 0, ran.err
    batch_id = ran.out.strip()
    assert f"{batch_id} ended: 40 of 40 done" in ran.err
    assert "\r" not in ran.err, "no bar in a pipe"
    assert [line["custom_id"] for line in read_lines(out)] == [request["custom_id"] for request in requests]
    assert files_in(tmp_path) == ["in.jsonl", "out.jsonl"]

    again = await cli("submit", file, "--stage", "email", "--json")
    assert again.json()["id"] == batch_id
    other = await cli("submit", file, "--stage", "email", "--key", f"other-{batch_id}")
    assert other.out.strip() not in ("", batch_id)


async def test_every_command_on_a_batch_with_failures(cli: Cli, tmp_path: Path) -> None:
    requests = [failing(request) if n % 2 else request for n, request in enumerate(make_requests(10))]
    file = write_lines(tmp_path / "failures.jsonl", requests)
    batch_id = (await cli("submit", file, "--stage", "subject", "--priority", "high")).out.strip()
    waited = await cli("wait", batch_id, "--timeout", "60s", "--json")
    assert (waited.code, waited.json()["counts"]) == (
        1,
        {"total": 10, "succeeded": 5, "errored": 5, "pending": 0},
    )
    status = await cli("status", batch_id)
    assert (status.code, status.out.splitlines()[0].split()) == (0, ["batch", batch_id])

    out = tmp_path / "out.jsonl"
    written = await cli("results", batch_id, "-o", str(out), "--json")
    assert (written.code, written.json()) == (
        1,
        {"id": batch_id, "output": str(out), "results": 10, "failed": 5},
    )
    piped = await cli("results", batch_id)
    assert (piped.code, piped.out) == (1, out.read_text())
    theirs = await cli("results", batch_id, "--format", "anthropic")
    kinds = [json.loads(line)["result"]["type"] for line in theirs.out.splitlines()]
    assert kinds == ["succeeded", "errored"] * 5

    retried = await cli("retry-failed", batch_id, "--watch", "--json")
    assert (retried.code, retried.json()["status"]["counts"]["total"]) == (1, 5)
    listed = await cli("list", "--limit", "1000", "--json")
    assert {batch_id, retried.json()["id"]} <= {batch["id"] for batch in listed.json()["batches"]}
    assert batch_id in (await cli("list", "--limit", "1000")).out

    assert (await cli("cancel", batch_id)).code == 2
    assert (await cli("delete", batch_id, "--json")).json() == {"id": batch_id, "deleted": True}
    assert (await cli("status", batch_id)).code == 4


async def test_a_stream_of_anthropics_requests_from_stdin_to_stdout(cli: Cli) -> None:
    params = {"model": "claude-haiku-4-5", "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}
    lines = "".join(json.dumps({"custom_id": f"c{n}", "params": params}) + "\n" for n in range(5))
    ran = await cli("submit", "-", "-o", "-", stdin=lines)
    assert ran.code == 0, ran.err
    results = [json.loads(line) for line in ran.out.splitlines()]
    assert [(line["custom_id"], line["model"]) for line in results] == [
        (f"c{n}", "mistral") for n in range(5)
    ]


async def test_what_is_wrong_is_said_with_its_line_and_its_exit_code(cli: Cli, tmp_path: Path) -> None:
    requests = make_requests(3)
    cut = tmp_path / "cut.jsonl"
    write_lines(cut, requests)
    cut.write_text(cut.read_text()[:-20])
    refused = write_lines(
        tmp_path / "refused.jsonl",
        [requests[0], {**requests[1], "params": {**requests[1]["params"], "max_tokens": 0}}],
    )
    for words, code, said in (
        (["submit", str(cut), "--stage", "email"], 2, f"{cut}:3: the line is not JSON"),
        (["submit", refused, "--stage", "email"], 2, f"{refused}:2: "),
        (["results", "batch_" + "0" * 24], 4, "not found"),
        (["status", "nonsense"], 4, "not found"),
        (["submit", str(cut)], 2, "the line is not JSON"),
    ):
        ran = await cli(*words)
        assert (ran.code, ran.out) == (code, ""), ran
        assert said in ran.err, ran
    nowhere = await Cli("http://127.0.0.1:9/v2/none", cli.key)("status", "x", "--json")
    assert (nowhere.code, nowhere.json()["error"]["exit_code"]) == (3, 3)


async def test_health_and_metrics(cli: Cli) -> None:
    health = await cli("health", "--json")
    assert (health.code, health.json()["ready"]) == (0, True)
    assert (await cli("health")).out.startswith("ready\n")
    assert (await cli("metrics", "--json")).json()
    assert "mistral" in (await cli("metrics")).out


async def test_a_wait_ends_with_130_when_it_is_interrupted_and_says_how_to_go_on(
    cli: Cli, client: BatchClient, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "in.jsonl", make_requests(5))
    async with faults(client, run_429=1):
        process = await cli.start("submit", file, "--stage", "email", "-w", "--key", f"int-{tmp_path}")
        assert process.stdout is not None
        batch_id = (await process.stdout.readline()).decode().strip()
        assert process.stderr is not None
        await process.stderr.readuntil(b"0 of 5 done")
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    assert f"Wait for it again with: llm-batch wait {batch_id}" in err.decode()
    assert (await cli("wait", batch_id)).code == 0


async def test_a_terminal_gets_a_bar(cli: Cli, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "in.jsonl", make_requests(7))
    ours, theirs = pty.openpty()
    process = await cli.start("submit", file, "--stage", "email", "-w", stderr=theirs)
    os.close(theirs)
    await process.communicate()
    shown = b""
    # Linux ends the reading of a terminal that nobody has open with an error.
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass
    finally:
        os.close(ours)
    assert b"\r\x1b[2K[#" in shown
    assert b"100%  7/7" in shown


@dataclass(slots=True)
class Gate:
    """A way to the batch endpoint that lets some calls through and holds the replies of the others back."""

    target: str
    passes: Callable[[dict[str, Any]], bool]
    forwards_held: bool
    url: str = ""
    passed: list[str] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        job_input = json.loads(body)["input"] if body else {}
        if self.passes(job_input):
            self.passed.append(job_input.get("operation", "look"))
            return await self._forward(request, body)
        if self.forwards_held:
            await self._forward(request, body)
        self.held.set()
        await self.closing.wait()
        return web.Response(status=503)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        url = f"{self.target}{request.path_qs}"
        headers = {"authorization": request.headers["authorization"], "content-type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=body or None, headers=headers) as answer,
        ):
            text = await answer.read()
            return web.Response(status=answer.status, body=text, content_type="application/json")


@asynccontextmanager
async def gate(
    cli: Cli, passes: Callable[[dict[str, Any]], bool], *, forwards_held: bool
) -> AsyncIterator[Gate]:
    made = Gate(cli.url, passes, forwards_held)
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}"
    try:
        yield made
    finally:
        made.closing.set()
        await runner.cleanup()


async def ended_while_held(cli: Cli, way: Gate, how: signal.Signals, *words: str) -> Ran:
    """Runs the program until a call of its is held back, and ends it there."""
    process = await Cli(way.url, cli.key).start(*words)
    async with asyncio.timeout(TIMEOUT_S):
        await way.held.wait()
        process.send_signal(how)
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


def creates_nothing(job_input: dict[str, Any]) -> bool:
    return job_input.get("operation") != "create"


async def test_interrupted_in_a_submit_it_ends_with_130_and_says_how_to_go_on(
    cli: Cli, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "in.jsonl", make_requests(3))
    async with gate(cli, creates_nothing, forwards_held=False) as way:
        ran = await ended_while_held(cli, way, signal.SIGINT, "submit", file, "--stage", "email")
    assert (ran.code, ran.out) == (130, "")
    assert "The same command again goes on where this one stopped" in ran.err


async def test_killed_before_it_learnt_the_id_the_same_command_gives_the_same_batch(
    cli: Cli, cloud_redis: Upstash, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "in.jsonl", make_requests(12))
    words = ("submit", file, "--stage", "email", "--expires-in", "3h")
    before = await keys_in(cloud_redis, "batch:batch_*")
    async with gate(cli, creates_nothing, forwards_held=True) as way:
        assert (await ended_while_held(cli, way, signal.SIGKILL, *words)).code == -signal.SIGKILL

    async def made() -> bool:
        return len(await keys_in(cloud_redis, "batch:batch_*")) > len(before)

    await eventually(made, "the create whose reply was held back made a batch")
    again = await cli(*words, "--watch")
    assert again.code == 0, again.err
    new = {key for key in await keys_in(cloud_redis, "batch:batch_*") if key not in before}
    assert {key.split(":")[1] for key in new} == {again.out.strip()}


async def test_killed_in_mid_upload_the_same_command_goes_on_and_makes_one_batch(
    cli: Cli, cloud_redis: Upstash, tmp_path: Path
) -> None:
    # Some parts, of requests that the engine reads in moments.
    requests = [{**request, "metadata": {"note": "x" * 400_000}} for request in make_requests(60)]
    file, out = write_lines(tmp_path / "large.jsonl", requests), tmp_path / "out.jsonl"
    words = ("submit", file, "--stage", "email", "-o", str(out))
    before = await keys_in(cloud_redis, "batch:batch_*")

    def is_first(job_input: dict[str, Any]) -> bool:
        return job_input.get("operation") != "upload" or job_input["part"] == 0

    async with gate(cli, is_first, forwards_held=False) as way:
        assert (await ended_while_held(cli, way, signal.SIGKILL, *words)).code == -signal.SIGKILL
        assert set(way.passed) <= {"upload", "look"}
    assert await keys_in(cloud_redis, "batch:batch_*") == before

    again = await cli(*words)
    assert again.code == 0, again.err
    assert "Uploaded 60 of 60 requests (100 %)" in again.err
    assert [line["custom_id"] for line in read_lines(out)] == [request["custom_id"] for request in requests]
    new = await keys_in(cloud_redis, "batch:batch_*") - before
    assert {key.split(":")[1] for key in new} == {again.out.strip()}
    assert (await cli("submit", file, "--stage", "email")).out == again.out


def variant_of(offer: Offer) -> str:
    return f"{offer.endpoint}={offer.variant}" if offer.variant else offer.endpoint


def figures_of(offer: Offer) -> dict[str, Any]:
    """What a full worker does, taken apart into prompts and answers."""
    hardware = load_hardware()
    chosen = {offer.endpoint: offer.variant} if offer.variant else {}
    definition = load_deployment(chosen).endpoints[offer.endpoint]
    model = definition.model
    assert model is not None
    gpu, request = hardware["gpus"][model.gpu], hardware["request"]
    flops = definition.body["gpu"]["count"] * gpu[f"{model.precision}_tflops"] * 1e12
    flops_per_token = 2 * hardware["models"][model.name]["parameters_billion"] * 1e9
    input_tokens_per_s = flops * hardware["assumed"]["share_of_tflops"] / flops_per_token
    prompts_s = offer.capacity.slots * request["input_tokens"] / input_tokens_per_s
    answers_s = offer.capacity.request_s - prompts_s
    return {
        "model": model.name,
        "worker": offer.worker,
        "maxWorkers": offer.max_workers,
        "usdPerHour": round(offer.busy_usd_hour, 3),
        "slots": offer.capacity.slots,
        "inputTokensPerS": round(input_tokens_per_s),
        "outputTokensPerS": round(offer.capacity.slots * request["output_tokens"] / answers_s),
    }


def test_what_an_estimate_reckons_with_is_what_the_cost_page_says() -> None:
    script = (
        f"import('{PROGRAM.parent / 'figures.js'}').then((figures) => console.log(JSON.stringify(figures)))"
    )
    shown = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    figures = json.loads(shown.stdout)
    assert figures["VARIANTS"] == {variant_of(offer): figures_of(offer) for offer in offers()}
    managed = read_json(REPOSITORY / "runpod" / "prices.json")["managed_usd_per_million_tokens"]
    assert figures["MANAGED_USD"] == {
        model: {"input": price["input"], "output": price["output"]} for model, price in managed.items()
    }
    assert figures["STAGE_MODELS"] == DEFAULT_STAGES
