"""The soak itself: its time and its processes, that a seed replays exactly, and that it sees what is broken."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from shared.flow.callbacks import Callbacks
from shared.flow.outputs import ShardOutput
from tests.local_cloud.upstash.engine import find_engine, running_engine
from tests.soak import checks
from tests.soak.faults import RECEIVER, Weather
from tests.soak.plan import bad_image, mixed, poison
from tests.soak.redis import VirtualRedis
from tests.soak.run import run
from tests.soak.virtual import Process, VirtualLoop

STORM, BLOWS = 11, 13
# What a dead process was doing is never finished, and its coroutines can't be closed in an orderly way.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def redis() -> Iterator[VirtualRedis]:
    with running_engine(find_engine(os.environ)) as engine:
        redis = VirtualRedis(engine.socket_path)
        yield redis
        redis.close()


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.abandon()


async def _count(steps: list[float]) -> None:
    while True:
        steps.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)


def test_time_passes_only_when_nobody_can_run(loop: VirtualLoop) -> None:
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() == pytest.approx(3600)


def test_a_killed_process_runs_no_further_step(loop: VirtualLoop) -> None:
    process, steps = Process("victim"), list[float]()
    loop.inside(process, _count(steps))
    loop.call_later(2.5, process.kill)
    loop.run_until_complete(asyncio.sleep(10))
    assert len(steps) == 3


def test_a_frozen_process_goes_on_when_it_is_thawed(loop: VirtualLoop) -> None:
    process, steps = Process("sleeper"), list[float]()
    loop.inside(process, _count(steps))

    async def freeze_for_a_while() -> None:
        await asyncio.sleep(2.5)
        process.frozen = True
        await asyncio.sleep(5)
        process.thaw(loop)
        await asyncio.sleep(1.1)

    loop.run_until_complete(loop.outside(freeze_for_a_while()))
    assert [round(step_s, 1) for step_s in steps] == [0.0, 1.0, 2.0, 7.5, 8.5]


@pytest.mark.parametrize("seed", [STORM, BLOWS])
def test_a_seed_replays_exactly(redis: VirtualRedis, seed: int) -> None:
    first, second = run(mixed(seed), redis), run(mixed(seed), redis)
    assert first.injected
    assert first == second


def test_a_request_that_kills_its_worker_takes_no_innocent_along(redis: VirtualRedis) -> None:
    verdict = run(poison(1), redis)
    assert not verdict.violations
    assert verdict.computed == verdict.requests - 1


def test_a_bad_image_errors_no_batch_and_health_says_so(redis: VirtualRedis) -> None:
    verdict = run(bad_image(1), redis)
    assert not verdict.violations
    assert verdict.injected["engine_dies"] > 0


def test_a_shard_that_is_submitted_twice_is_computed_once(redis: VirtualRedis) -> None:
    calm = mixed(8)
    batches = [replace(batch, cancel_s=None, expires_in_s=None) for batch in calm.batches]
    doubled = [Weather("run_doubled", 1.0, 0.0, 1000.0)]
    verdict = run(replace(calm, batches=batches, weather=doubled, mistral_workers=3, llama_workers=3), redis)
    assert not verdict.violations
    assert verdict.injected["run_doubled"] > 0
    errors = sum("[[error]]" in str(request["params"]) for batch in batches for request in batch.requests)
    assert verdict.computed == verdict.requests - errors


def _swap(output: ShardOutput) -> ShardOutput:
    return ShardOutput(output.lines[1:] + output.lines[:1], output.gpu_ms)


def _repeat_one(output: ShardOutput) -> ShardOutput:
    return ShardOutput([output.lines[0]] * len(output.lines), output.gpu_ms)


@pytest.mark.parametrize("spoil", [_swap, _repeat_one])
def test_the_soak_sees_lines_that_are_not_those_of_the_requests(
    redis: VirtualRedis, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[ShardOutput], ShardOutput]
) -> None:
    encode = ShardOutput.encode
    monkeypatch.setattr(ShardOutput, "encode", lambda output: encode(spoil(output)))
    assert any("not one line per request" in claim for claim in run(mixed(8), redis).violations)


@pytest.mark.parametrize("fault", RECEIVER)
def test_every_end_is_told_though_its_receiver_often_fails(redis: VirtualRedis, fault: str) -> None:
    often = [Weather(fault, 0.8, 0.0, 300.0)]
    verdict = run(replace(mixed(8), weather=often, faults_end_s=300.0), redis)
    assert not verdict.violations
    assert verdict.injected[fault] > 0


def test_the_soak_sees_an_end_that_nobody_is_told_of(
    redis: VirtualRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Callbacks, "kick", lambda *arguments: None)
    claims = run(mixed(8), redis).violations
    assert any("nobody was told of its end" in claim for claim in claims)


def test_a_run_that_breaks_off_is_a_violation_of_its_seed(
    redis: VirtualRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise LookupError("the check can't go on")

    monkeypatch.setattr(checks, "check_store", fail)
    verdict = run(mixed(8), redis)
    assert verdict.seed == 8
    assert any("broke off" in claim for claim in verdict.violations)
