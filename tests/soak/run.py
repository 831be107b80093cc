"""One run of the soak: a world, its callers and its faults, from a seed to a verdict."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import boto3
import httpx

from tests.soak import checks
from tests.soak.caller import Caller
from tests.soak.faults import Faults
from tests.soak.intruder import check_nothing_ran, intrude
from tests.soak.plan import Blow, RunPlan
from tests.soak.redis import VirtualRedis
from tests.soak.virtual import Process, VirtualLoop
from tests.soak.worker import GpuWorker
from tests.soak.world import World

QUIET_S = 60.0


@dataclass(frozen=True)
class Verdict:
    """`trace` is the same for every run of a seed. `computed` counts what the engine finished."""

    seed: int
    flavour: str
    batches: int
    requests: int
    computed: int
    polls_after_faults: int
    injected: Mapping[str, int]
    violations: tuple[str, ...]
    virtual_s: float
    trace: str


def run(wanted: RunPlan, redis: VirtualRedis) -> Verdict:
    redis.clear()
    loop = VirtualLoop()
    faults = Faults(random.Random(f"faults:{wanted.seed}"), wanted.weather)
    world = World(loop, redis, faults, wanted.concurrency)
    try:
        with _patched(world, wanted.seed):
            try:
                return loop.run_until_complete(_run(world, wanted))
            except Exception as error:  # noqa: BLE001 - a run that can't go on is a failed one, and has a seed
                world.violations.append(f"broke off: {error!r}")
                return _verdict(world, wanted)
    finally:
        loop.abandon()


async def _run(world: World, wanted: RunPlan) -> Verdict:
    rng = random.Random(f"callers:{wanted.seed}")
    world.timing = replace(world.timing, tpot_ms=wanted.tpot_ms)
    for endpoint in world.endpoints.values():
        world.loop.outside(endpoint.advance_for_ever())
    for _ in range(wanted.batch_workers):
        await world.start_batch_process()
    for place in range(wanted.mistral_workers):
        GpuWorker(world, world.endpoints["mistral"], place)
    for place in range(wanted.llama_workers):
        GpuWorker(world, world.endpoints["llama"], place)
    blows = [world.loop.outside(_strike(world, blow)) for blow in wanted.blows]
    if wanted.broken_s is not None:
        blows.append(world.loop.outside(_expect_broken(world, rng, wanted.broken_s)))
    callers = [
        Caller(world, batch, random.Random(rng.random()), wanted.faults_end_s) for batch in wanted.batches
    ]
    intruding = world.loop.outside(intrude(world, random.Random(rng.random()), callers[0].plan.key))
    await asyncio.gather(*(caller.run() for caller in callers))
    await intruding
    check_nothing_ran(world)
    await asyncio.gather(*blows)
    computed = requests = 0
    if not world.violations:
        # Late webhooks arrive, and what was frozen has its say.
        for endpoint in world.endpoints.values():
            await endpoint.deliver_late()
        await asyncio.sleep(QUIET_S)
        checks.check_store(world, callers)
        for caller in callers:
            await caller.check_told()
            await caller.check_again()
            checks.check_submissions(world, caller)
            work = checks.check_work(world, caller, wanted.faults_end_s)
            computed, requests = computed + work[0], requests + work[1]
            await caller.check_retry()
            if caller.plan.deletes:
                nonce = checks.nonce_of(world, caller)
                await caller.delete()
                checks.check_deleted(world, caller, nonce)
    polls = max(caller.polls_after_faults for caller in callers)
    return _verdict(world, wanted, requests, computed, polls)


def _verdict(world: World, wanted: RunPlan, requests: int = 0, computed: int = 0, polls: int = 0) -> Verdict:
    return Verdict(
        seed=wanted.seed,
        flavour=wanted.flavour,
        batches=len(wanted.batches),
        requests=requests,
        computed=computed,
        polls_after_faults=polls,
        injected=dict(world.faults.injected),
        violations=(*world.violations, *world.loop.failures),
        virtual_s=world.loop.time(),
        trace=world.trace(),
    )


async def _strike(world: World, blow: Blow) -> None:
    await asyncio.sleep(blow.at_s)
    alive = [process for process in world.processes if not process.dead]
    process = alive[blow.target % len(alive)]
    world.faults.note(blow.kind)
    world.note("blow", blow.kind, process.name)
    if blow.kind == "kill":
        process.kill()
    elif blow.kind == "kill_between_calls":
        world.strike_at(process, blow.call)
    elif blow.kind == "term":
        process.on_term()
    else:
        await _freeze(world, process, blow)


async def _freeze(world: World, process: Process, blow: Blow) -> None:
    process.frozen = True
    if blow.kind == "freeze_and_replace":
        process.on_replace()
    await asyncio.sleep(blow.lasts_s)
    process.thaw(world.loop)


async def _expect_broken(world: World, rng: random.Random, at_s: float) -> None:
    await asyncio.sleep(at_s)
    health = (await world.call(rng, operation="health")).output or {}
    breaker = health["endpoints"]["mistral"]["breaker"] if health else {"cause": None}
    if health.get("ready") is not False or breaker["cause"] != "deaths":
        world.violations.append(f"health does not say that workers die: {health}")


@contextmanager
def _patched(world: World, seed: int) -> Iterator[None]:
    """The network, the clock and chance are the world's."""
    ids = random.Random(f"ids:{seed}")
    client = httpx.AsyncClient
    saved: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, value: Any) -> None:
        saved.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    patch(httpx, "AsyncClient", lambda **options: client(transport=world, trust_env=False, **_plain(options)))
    patch(httpx, "AsyncHTTPTransport", lambda **options: world)
    patch(boto3, "client", lambda *args, **options: world.bucket)
    patch(secrets, "token_hex", lambda size: ids.randbytes(size).hex())
    for name, module in list(sys.modules.items()):
        if name.startswith("shared.") and getattr(module, "monotonic", None) is time.monotonic:
            patch(module, "monotonic", world.loop.time)
    random.seed(f"product:{seed}")
    try:
        yield
    finally:
        for owner, name, value in saved:
            setattr(owner, name, value)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("limits",)}
