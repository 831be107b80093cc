"""Failpoints without a cloud: where they strike, how often, and that each of them is at a call that exists."""

import inspect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.engines.simulated import SimTiming, SimulatedEngine
from shared.errors import EngineDead
from shared.ports.engine import Prompt
from tests.client import make_requests
from tests.local_cloud.failpoints.acts import ACTS
from tests.local_cloud.failpoints.armed import Armed
from tests.local_cloud.failpoints.command import FOLDER, with_failpoints
from tests.local_cloud.failpoints.moments import MOMENTS, Place
from tests.local_cloud.failpoints.source import Failpoints
from tests.local_cloud.failpoints.striking import wrapped
from tests.local_cloud.failpoints.table import FAILPOINTS
from tests.local_cloud.fault_sources import FaultSources
from tests.local_cloud.fault_table import Next, Share, UnknownFaults
from tests.local_cloud.settings import Program

PROMPT = Prompt("request", {**make_requests(1)[0]["params"], "max_tokens": 4})


def test_every_failpoint_is_an_act_at_a_call_that_can_be_waited_for() -> None:
    for failpoint in FAILPOINTS.values():
        assert failpoint.act in ACTS
        for place in MOMENTS[failpoint.moment].places:
            assert inspect.iscoroutinefunction(getattr(place.owner, place.method)), place


def test_a_failpoint_strikes_as_often_as_it_is_armed_whoever_comes_by(tmp_path: Path) -> None:
    Armed(tmp_path).set("kill_after_start", Next(5))
    with ThreadPoolExecutor(8) as workers:
        struck = list(workers.map(lambda _: Armed(tmp_path).fires("kill_after_start"), range(100)))
    assert sum(struck) == Armed(tmp_path).fired("kill_after_start") == 5
    assert Armed(tmp_path).when("kill_after_start") == Next(0)
    assert not Armed(tmp_path).fires("kill_mid_shard"), "it was never set"


def test_what_is_set_last_counts(tmp_path: Path) -> None:
    armed = Armed(tmp_path)
    armed.set("engine_dies", Next(3))
    armed.set("engine_dies", Share(1.0))
    assert [armed.fires("engine_dies") for _ in range(5)] == [True] * 5
    armed.set("engine_dies", Share(0.0))
    assert (armed.fires("engine_dies"), armed.when("engine_dies")) == (False, Share(0.0))
    assert armed.fired("engine_dies") == 5


async def test_failpoints_are_faults_like_all_others(tmp_path: Path) -> None:
    sources = FaultSources()
    sources.add(Failpoints(tmp_path))
    with pytest.raises(UnknownFaults):
        await sources.set({"kill_after_start": 1, "kill_after_lunch": 1})
    assert not Armed(tmp_path).fires("kill_after_start"), "a mistake changes nothing"
    await sources.set({"kill_after_start": {"times": 2}, "kill_mid_shard": 0.5})
    Armed(tmp_path).fires("kill_after_start")
    shown = await sources.get()
    effect = FAILPOINTS["kill_after_start"].effect
    assert shown["kill_after_start"] == {"times": 1, "effect": effect, "fired": 1}
    assert shown["kill_mid_shard"]["rate"] == 0.5


async def test_a_failpoint_looks_at_its_call_before_it_strikes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, object]] = []

    async def note(call: Mapping[str, Any]) -> None:
        seen.append((call["step"], call.get("result")))

    monkeypatch.setitem(ACTS, "kill", note)

    async def delete(batch_id: str, step: str) -> str:
        return f"{batch_id} {step}"

    struck = [
        ("kill_mid_delete", Place(object, "delete", after=True, when=lambda call: call["step"] == "mark")),
        (
            "kill_late_delete",
            Place(object, "delete", after=False, when=lambda call: call["step"] == "finish"),
        ),
    ]
    method = wrapped(delete, struck, lambda name: True)
    assert await method("batch", step="mark") == "batch mark"
    assert await method("batch", "finish") == "batch finish"
    assert seen == [("mark", "batch mark"), ("finish", None)]


@pytest.mark.parametrize(
    ("failpoint", "error"), [("engine_dies", EngineDead), ("out_of_memory", MemoryError)]
)
async def test_what_befalls_an_engine_is_what_its_caller_meets(
    failpoint: str, error: type[Exception]
) -> None:
    engine = SimulatedEngine(SimTiming(0, 0, 4))
    method = wrapped(
        SimulatedEngine.generate, [(failpoint, MOMENTS["in_engine"].places[0])], lambda name: True
    )
    with pytest.raises(error):
        await method(engine, PROMPT)
    assert engine.alive == (error is not EngineDead)


def test_the_launcher_goes_between_python_and_the_module(tmp_path: Path) -> None:
    own = Program(("python", "-u", "-m", "handlers.mistral.handler"), tmp_path, {"A": "1"})
    started = with_failpoints(own, tmp_path)
    assert started.command == (
        *("python", "-u", "-m"),
        "tests.local_cloud.failpoints",
        "handlers.mistral.handler",
    )
    assert started.env == {"A": "1", FOLDER: str(tmp_path)}
