"""What once went wrong outside the state, by its symptom."""

import asyncio
from collections.abc import Sequence

import pytest

from handlers.catalog import CARDS
from shared.config import load_settings
from shared.core.metrics import Sample, render
from shared.errors import ConfigError, EngineDead, StorageUnavailable
from shared.flow import worker
from tests.fakes import FakePayloads
from tests.unit.test_config import ENV
from tests.unit.test_flow_worker import Bench, bench

__all__ = ["bench"]


@pytest.mark.parametrize("value", [1_234_567.0, 98_765_432_101.0, 1234.5678901])
def test_a_counter_past_a_million_keeps_its_digits(value: float) -> None:
    line = render([Sample("output_tokens_total", value)]).splitlines()[-1]
    assert float(line.split()[-1]) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("LOG_LEVEL", "LOUD"), ("UPSTASH_REDIS_REST_URL", "http://["), ("MISTRAL_BASE_URL", "http://[x/v2/a")],
)
def test_a_bad_value_is_a_fault_and_not_a_traceback(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({**ENV, name: value}, CARDS)
    assert caught.value.faults[0].startswith(name)


def test_two_models_never_share_an_endpoint_id() -> None:
    with pytest.raises(ConfigError):
        load_settings({**ENV, "LLAMA_BASE_URL": ENV["MISTRAL_BASE_URL"]}, CARDS)


async def test_a_shard_that_storage_can_not_give_comes_back_later_not_at_once(bench: Bench) -> None:
    with pytest.raises(StorageUnavailable):
        await bench.run_stored()
    assert bench.repairs.requeued[0].delay_ms > 0


async def test_a_cancel_that_comes_before_the_requests_are_in_the_engine_is_honoured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CanceledMeanwhile(FakePayloads):
        async def get(self, keys: Sequence[str]) -> list[bytes | None]:
            bench.runs.verdict = "canceled"
            await bench.running.beat()
            return [bench.payloads.items.get(key) for key in keys]

    monkeypatch.setattr(bench.payloads, "get", CanceledMeanwhile().get)
    await bench.run("a", "b")
    assert bench.engine.prompts == []
    assert [line["status"] for line in bench.lines()] == ["canceled", "canceled"]


async def test_a_dead_engine_is_noticed_though_other_requests_hang(bench: Bench) -> None:
    bench.engine.faults = {"b": [EngineDead("CUDA error")]}
    bench.engine.held = {"a"}
    with pytest.raises(EngineDead):
        await asyncio.wait_for(bench.run("a", "b"), 20)
    assert bench.repairs.requeued[0].blame


@pytest.mark.parametrize(("timeout_s", "blamed"), [(0.0, True), (600.0, False)])
async def test_a_shard_that_hangs_until_its_job_is_stopped_each_time_is_not_run_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, timeout_s: float, blamed: bool
) -> None:
    monkeypatch.setattr(worker, "EXECUTION_TIMEOUT_MIN_S", timeout_s)
    bench.engine.held = {"a"}
    job = asyncio.create_task(bench.run("a"))
    await bench.until_asked(["a"])
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    [requeued] = bench.repairs.requeued
    assert (requeued.blame, requeued.delay_ms > 0) == (blamed, blamed)
