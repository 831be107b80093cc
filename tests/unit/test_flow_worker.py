"""A worker's shard from its start to its settle, over fakes of everything it stands on."""

import asyncio
import random
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from handlers.catalog import CARDS
from shared.core import codec
from shared.core.lifecycle import ShardState
from shared.core.structured import schema_format
from shared.errors import (
    EngineBusy,
    EngineDead,
    InvalidRequest,
    RequestRejected,
    StorageUnavailable,
    WorkerLeaving,
)
from shared.flow.feeder import Feeder
from shared.flow.outputs import ShardOutput
from shared.flow.room import Room
from shared.flow.running import RunningShards
from shared.flow.worker import CANARY, ShardInput, Worker
from shared.ports.engine import Completion, Prompt
from shared.ports.payloads import PAYLOAD_SLACK_MS, input_key, output_key
from shared.ports.state import Endpoint, Started
from tests.fakes import FakeJobs, FakePayloads, FakeQueue, FakeRepairs, FakeRuns, ScriptedEngine

ENDPOINT = Endpoint("ep", "http://runpod.invalid/v2/ep", "mistral")
BATCH = "batch_" + "0" * 24
KEY = output_key("nonce", 0, 1)
DEADLINE_S = 20.0
CANARY_TEXT: str = CANARY["messages"][0]["content"]  # type: ignore[index]


@dataclass
class Bench:
    """One worker and what it stands on."""

    worker: Worker
    engine: ScriptedEngine
    runs: FakeRuns
    repairs: FakeRepairs
    payloads: FakePayloads
    queue: FakeQueue
    running: RunningShards
    room: Room

    async def run(self, *texts: str, endpoint: str = ENDPOINT.id) -> dict[str, Any]:
        self.store(*texts)
        return await self.run_stored(endpoint)

    def store(self, *texts: str, shard: int = 0) -> None:
        requests = [
            {"custom_id": f"id-{n}", "params": {"messages": [{"role": "user", "content": text}]}}
            for n, text in enumerate(texts)
        ]
        self.payloads.items[input_key("nonce", shard)] = codec.encode(requests)
        self.expect(len(requests))

    def expect(self, requests: int) -> None:
        self.runs.started = replace(self.runs.started, requests=requests)

    async def run_params(self, *params: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "user", "content": "x"}
        requests = [
            {"custom_id": f"id-{n}", "params": {"messages": [message], **own}} for n, own in enumerate(params)
        ]
        self.payloads.items[input_key("nonce", 0)] = codec.encode(requests)
        self.expect(len(requests))
        return await self.run_stored()

    async def run_stored(
        self, endpoint: str = ENDPOINT.id, *, alone: bool = False, canary: bool = False
    ) -> dict[str, Any]:
        wanted = ShardInput(batch=BATCH, shard=0, attempt=1, endpoint=endpoint, alone=alone, canary=canary)
        return await self.worker.run("job", wanted)

    async def run_after_canary(self, *texts: str) -> dict[str, Any]:
        self.store(*texts)
        return await self.run_stored(alone=True, canary=True)

    async def waiting(self, *, alone: bool) -> asyncio.Task[dict[str, Any]]:
        """A shard that has come and can't enter the engine yet."""
        job = asyncio.create_task(self.run_stored(alone=alone))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not job.done()
        assert self.runs.starts == 0
        return job

    async def until_asked(self, texts: Sequence[str]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            # Polled: the prompts are noted by an engine that knows nothing of its tests.
            while not set(texts) <= set(self.engine.prompts):  # noqa: ASYNC110
                await asyncio.sleep(0)

    def lines(self) -> list[dict[str, Any]]:
        [settled] = self.runs.settled
        data = b64decode(settled.inline) if settled.inline else self.payloads.items[settled.output_key]
        output = ShardOutput.parse(data, len(codec.decode(self.payloads.items[input_key("nonce", 0)])))
        assert output is not None
        return output.lines


@pytest_asyncio.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Retries of a request wait for nothing."""
    monkeypatch.setattr(random, "random", lambda: 0.0)
    engine, runs, repairs, payloads, queue = (
        ScriptedEngine(),
        FakeRuns(),
        FakeRepairs(),
        FakePayloads(100_000),
        FakeQueue(),
    )
    cards = {card.name: card for card in CARDS}
    feeder = Feeder(queue, repairs, FakeJobs(), {"mistral": ENDPOINT}, cards, lambda batch: None)

    async def tick() -> None:
        """Somebody else's work."""

    running = RunningShards(runs, ENDPOINT, tick, beat_s=60)
    room = Room()
    worker = Worker("w1", ENDPOINT, engine, room, runs, repairs, payloads, feeder, running)
    yield Bench(worker, engine, runs, repairs, payloads, queue, running, room)
    if running._beating is not None:
        running._beating.cancel()


async def test_what_was_refused_before_is_counted_as_seen_by_no_engine(bench: Bench) -> None:
    refusal = {"type": "invalid_request_error", "message": "no"}
    plain = {"custom_id": "a", "params": {"messages": [{"role": "user", "content": "x"}]}}
    requests = [plain, {**plain, "refusal": refusal}]
    bench.payloads.items[input_key("nonce", 0)] = codec.encode(requests)
    bench.expect(len(requests))
    await bench.run_stored()
    [settled] = bench.runs.settled
    assert (settled.outcome.succeeded, settled.outcome.errored, settled.outcome.refused) == (1, 1, 1)
    assert bench.lines()[1]["error"] == refusal
    assert bench.engine.prompts == ["x"]


async def test_a_shard_is_settled_with_one_line_per_request_in_order(bench: Bench) -> None:
    output = await bench.run("a", "bb", "ccc")
    assert output == {
        "state": "settled",
        "requests": 3,
        "succeeded": 3,
        "errored": 0,
        "input_tokens": 6,
        "output_tokens": 6,
    }
    lines = bench.lines()
    assert [line["custom_id"] for line in lines] == ["id-0", "id-1", "id-2"]
    assert [line["message"]["content"][0]["text"] for line in lines] == ["A", "BB", "CCC"]
    assert all(line["latency_ms"] >= 0 for line in lines)
    assert all(line["message"]["stop_reason"] == "end_turn" for line in lines)
    [settled] = bench.runs.settled
    assert (settled.epoch, settled.output_key, settled.outcome.succeeded) == (1, KEY, 3)


async def test_a_request_with_a_refusal_is_that_error_and_never_reaches_the_engine(bench: Bench) -> None:
    refused = {"refusal": {"type": "invalid_request_error", "message": "max_tokens: Field required"}}
    messages = [{"role": "user", "content": "x"}]
    requests = [
        {"custom_id": "id-0", "params": {"messages": messages}, **refused},
        {"custom_id": "id-1", "params": {"messages": messages}},
    ]
    bench.payloads.items[input_key("nonce", 0)] = codec.encode(requests)
    bench.expect(len(requests))
    output = await bench.run_stored()
    assert (output["succeeded"], output["errored"]) == (1, 1)
    refusal, answer = bench.lines()
    assert refusal["error"] == refused["refusal"]
    assert answer["status"] == "succeeded"
    assert bench.engine.prompts == ["x"]


async def test_requests_of_a_batch_are_not_urgent(bench: Bench) -> None:
    await bench.run("a", "b")
    assert bench.engine.urgent == [False, False]


async def test_a_call_that_had_to_be_made_and_was_not_is_an_error_of_the_model(bench: Bench) -> None:
    tool = {"name": "rate", "input_schema": {"type": "object"}}
    forced = {"tools": [tool], "tool_choice": {"type": "any"}}
    await bench.run_params(forced, {**forced, "on_invalid": "retry"}, {"tools": [tool]})
    *invalid, free = bench.lines()
    for line in invalid:
        assert line["error"] == {
            "type": "model_error",
            "message": "Output validation failed: no tool was called",
        }
    assert free["status"] == "succeeded"
    # Once, three times, once.
    assert len(bench.engine.prompts) == 5


async def test_an_offer_that_cannot_be_served_never_reaches_the_engine(bench: Bench) -> None:
    await bench.run_params(
        {"tools": [{"type": "bash_20250124", "name": "bash"}]}, {"tool_choice": {"type": "any"}}
    )
    assert [line["error"]["type"] for line in bench.lines()] == ["invalid_request_error"] * 2
    assert bench.engine.prompts == []


async def test_all_requests_are_in_the_engine_at_once(bench: Bench) -> None:
    texts = [f"t{n}" for n in range(20)]
    bench.engine.held = set(texts)
    job = asyncio.create_task(bench.run(*texts))
    await bench.until_asked(texts)
    bench.engine.release.set()
    assert (await job)["succeeded"] == 20


async def test_a_passing_fault_is_tried_three_times(bench: Bench) -> None:
    bench.engine.faults = {"twice": [EngineBusy("x")] * 2, "thrice": [EngineBusy("too busy")] * 3}
    output = await bench.run("twice", "thrice")
    assert (output["succeeded"], output["errored"]) == (1, 1)
    assert bench.engine.prompts.count("twice") == bench.engine.prompts.count("thrice") == 3
    assert bench.lines()[1]["error"] == {"type": "api_error", "message": "too busy"}


async def test_a_request_at_fault_is_tried_once_and_takes_no_neighbour_along(bench: Bench) -> None:
    bench.engine.faults = {"bad": [RequestRejected("no such role")]}
    output = await bench.run("good", "bad", "fine")
    assert (output["succeeded"], output["errored"]) == (2, 1)
    assert bench.engine.prompts.count("bad") == 1
    line = bench.lines()[1]
    assert (line["status"], line["message"], line["usage"]) == ("errored", None, None)
    assert line["error"] == {"type": "invalid_request_error", "message": "no such role"}


@pytest.mark.parametrize("verdict", ["gone", "settled", "stale", "busy", "canceled", "expired"])
async def test_a_job_that_may_not_run_costs_no_engine_and_feeds_the_next(bench: Bench, verdict: Any) -> None:
    bench.runs.started = Started(verdict)
    assert await bench.run("a") == {"state": "refused", "reason": verdict}
    assert bench.engine.prompts == []
    assert (bench.runs.settled, bench.repairs.requeued) == ([], [])
    await bench.worker.feeder.kick("mistral")
    assert bench.queue.asked


async def test_the_next_shards_are_fed_by_the_start_and_by_the_settle(bench: Bench) -> None:
    bench.engine.held = {"a"}
    job = asyncio.create_task(bench.run("a"))
    await bench.until_asked(["a"])
    assert bench.queue.asked == [["head"]]
    bench.engine.release.set()
    await job
    await bench.worker.feeder.kick("mistral")
    assert ["head"] in bench.queue.asked[1:]


@pytest.mark.parametrize("verdict", ["canceled", "expired"])
async def test_a_stopped_shard_keeps_what_is_done_and_marks_the_rest(bench: Bench, verdict: Any) -> None:
    bench.engine.held = {"slow"}
    job = asyncio.create_task(bench.run("quick", "slow"))
    await bench.until_asked(["quick", "slow"])
    bench.runs.verdict = verdict
    await bench.running.beat()
    output = await job
    assert (output["state"], output["succeeded"]) == ("settled", 1)
    assert [line["status"] for line in bench.lines()] == ["succeeded", verdict]
    assert bench.lines()[1]["error"]["type"] == verdict
    assert bench.engine.aborted == ["slow"]
    assert getattr(bench.runs.settled[0].outcome, verdict) == 1


async def test_a_lost_shard_is_left_alone(bench: Bench) -> None:
    bench.engine.held = {"slow"}
    job = asyncio.create_task(bench.run("slow"))
    await bench.until_asked(["slow"])
    bench.runs.verdict = "lost"
    await bench.running.beat()
    assert await job == {"state": "refused", "reason": "lost"}
    assert bench.runs.settled == []
    assert bench.engine.aborted == ["slow"]


async def test_progress_travels_with_the_beat_and_a_lost_beat_harms_nothing(bench: Bench) -> None:
    bench.engine.held = {"slow"}
    bench.engine.faults = {"bad": [RequestRejected("no")]}
    job = asyncio.create_task(bench.run("quick", "bad", "slow"))
    await bench.until_asked(["quick", "bad", "slow"])
    bench.runs.down = True
    await bench.running.beat()
    [[progress]] = bench.runs.beats
    assert (progress.epoch, progress.succeeded, progress.errored) == (1, 1, 1)
    bench.engine.release.set()
    assert (await job)["succeeded"] == 2


async def test_a_large_output_is_stored_before_the_settle(bench: Bench) -> None:
    bench.payloads._inline_bytes = 10
    assert (await bench.run("a" * 100))["state"] == "settled"
    [settled] = bench.runs.settled
    assert (settled.inline, settled.output_key) == ("", KEY)
    assert KEY in bench.payloads.items
    assert bench.lines()[0]["status"] == "succeeded"


async def test_an_output_that_came_too_late_is_refused(bench: Bench) -> None:
    bench.runs.stands = False
    assert (await bench.run("a"))["state"] == "refused"


async def test_a_dead_engine_gives_its_shard_back_with_blame(bench: Bench) -> None:
    bench.engine.faults = {"b": [EngineDead("CUDA error")]}
    with pytest.raises(EngineDead):
        await bench.run("a", "b")
    [requeued] = bench.repairs.requeued
    assert requeued.blame
    assert (requeued.seen.state, requeued.seen.epoch, requeued.seen.attempt) == (ShardState.RUNNING, 1, 1)
    assert bench.runs.settled == []


async def test_a_request_that_the_engine_drops_gives_its_shard_back_with_blame(bench: Bench) -> None:
    bench.engine.faults = {"b": [asyncio.CancelledError()]}
    with pytest.raises(EngineDead):
        await bench.run("a", "b")
    [requeued] = bench.repairs.requeued
    assert requeued.blame
    assert bench.runs.settled == []


async def test_a_shard_whose_input_is_missing_is_given_back_without_blame(bench: Bench) -> None:
    with pytest.raises(StorageUnavailable):
        await bench.run_stored()
    [requeued] = bench.repairs.requeued
    assert not requeued.blame


async def test_a_shard_whose_input_is_broken_is_given_back_without_blame(bench: Bench) -> None:
    bench.expect(1)
    bench.payloads.items[input_key("nonce", 0)] = b"not what was stored"
    with pytest.raises(StorageUnavailable):
        await bench.run_stored()
    [requeued] = bench.repairs.requeued
    assert not requeued.blame


async def test_a_cancelled_job_gives_its_shard_back_without_blame(bench: Bench) -> None:
    bench.engine.held = {"a"}
    job = asyncio.create_task(bench.run("a"))
    await bench.until_asked(["a"])
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    [requeued] = bench.repairs.requeued
    assert not requeued.blame
    assert bench.engine.aborted == ["a"]


async def test_a_worker_that_leaves_gives_its_shards_back_at_once_and_without_blame(bench: Bench) -> None:
    bench.engine.held = {"slow"}
    job = asyncio.create_task(bench.run("quick", "slow"))
    await bench.until_asked(["quick", "slow"])
    bench.worker.give_back()
    with pytest.raises(WorkerLeaving):
        await job
    [requeued] = bench.repairs.requeued
    assert (requeued.blame, requeued.delay_ms) == (False, 0)
    assert bench.engine.aborted == ["slow"]
    assert bench.runs.settled == []


async def test_a_shard_that_starts_while_its_worker_leaves_goes_back_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bench.runs.start

    async def leave_and_start(*args: Any, **kwargs: Any) -> Started:
        bench.worker.give_back()
        return await start(*args, **kwargs)

    monkeypatch.setattr(bench.runs, "start", leave_and_start)
    with pytest.raises(WorkerLeaving):
        await bench.run("a")
    [requeued] = bench.repairs.requeued
    assert (requeued.seen.state, requeued.blame, requeued.delay_ms) == (ShardState.RUNNING, False, 0)


async def test_a_suspect_waits_until_the_engine_is_empty(bench: Bench) -> None:
    bench.store("a")
    await bench.room.enter(alone=False)
    job = await bench.waiting(alone=True)
    bench.room.leave()
    assert (await job)["state"] == "settled"


async def test_a_shard_in_company_waits_while_a_suspect_runs(bench: Bench) -> None:
    bench.store("a")
    await bench.room.enter(alone=True)
    job = await bench.waiting(alone=False)
    bench.room.leave()
    assert (await job)["state"] == "settled"


@pytest.mark.parametrize("alone", [False, True])
async def test_shards_in_company_run_beside_each_other_and_suspects_do_not(bench: Bench, alone: bool) -> None:
    bench.store("a")
    bench.engine.held = {"a"}
    first = asyncio.create_task(bench.run_stored())
    await bench.until_asked(["a"])
    second = asyncio.create_task(bench.run_stored(alone=alone))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(bench.engine.prompts) == (1 if alone else 2)
    bench.engine.release.set()
    assert [(await job)["state"] for job in (first, second)] == ["settled", "settled"]


async def end_of_worker(bench: Bench) -> None:
    bench.worker.give_back()


async def death_of_engine(bench: Bench) -> None:
    bench.engine.alive = False


@pytest.mark.parametrize("end", [end_of_worker, death_of_engine])
async def test_a_shard_whose_worker_ends_while_it_waits_goes_back_as_it_was(
    bench: Bench, end: Callable[[Bench], Awaitable[None]]
) -> None:
    bench.store("a")
    await bench.room.enter(alone=False)
    job = await bench.waiting(alone=True)
    await end(bench)
    bench.room.leave()
    assert await job == {"state": "refused", "reason": "leaving"}
    [requeued] = bench.repairs.requeued
    assert (requeued.seen.state, requeued.blame, requeued.delay_ms) == (ShardState.SUBMITTED, False, 0)
    assert (bench.runs.starts, bench.engine.prompts) == (0, [])


async def test_a_shard_whose_job_is_cancelled_while_it_waits_goes_back_and_takes_no_place(
    bench: Bench,
) -> None:
    bench.store("a")
    await bench.room.enter(alone=False)
    job = await bench.waiting(alone=True)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    [requeued] = bench.repairs.requeued
    assert (requeued.seen.state, requeued.blame, requeued.delay_ms) == (ShardState.SUBMITTED, False, 0)
    assert (bench.runs.starts, bench.engine.prompts) == (0, [])
    bench.room.leave()
    assert (await bench.run_stored(alone=True))["state"] == "settled"


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("fault", [None, EngineDead("CUDA error")])
async def test_a_shard_that_ended_leaves_the_room(
    bench: Bench, alone: bool, fault: EngineDead | None
) -> None:
    bench.store("a")
    bench.engine.faults = {"a": [fault]} if fault else {}
    await asyncio.gather(bench.run_stored(alone=alone), return_exceptions=True)
    await asyncio.wait_for(bench.room.enter(alone=True), DEADLINE_S)


async def test_a_canary_is_answered_before_its_shard_starts_and_proves_the_endpoint(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, asked_before_start = bench.runs.start, []

    async def note_and_start(*args: Any, **kwargs: Any) -> Started:
        asked_before_start.extend(bench.engine.prompts)
        return await start(*args, **kwargs)

    monkeypatch.setattr(bench.runs, "start", note_and_start)
    assert (await bench.run_after_canary("a"))["succeeded"] == 1
    assert asked_before_start == [CANARY_TEXT]
    assert bench.engine.prompts == [CANARY_TEXT, "a"]
    assert bench.runs.proven == [True]
    assert len(bench.lines()) == 1


async def test_a_shard_without_a_canary_costs_one_prompt_and_proves_nothing_at_its_start(
    bench: Bench,
) -> None:
    bench.store("a")
    await bench.run_stored(alone=True)
    assert bench.engine.prompts == ["a"]
    assert bench.runs.proven == [False]


async def test_a_canary_that_kills_its_engine_fails_its_job_and_its_shard_never_starts(bench: Bench) -> None:
    bench.engine.faults = {CANARY_TEXT: [EngineDead("CUDA error")]}
    with pytest.raises(EngineDead):
        await bench.run_after_canary("a")
    assert bench.engine.prompts == [CANARY_TEXT]
    # Its job's end is noted by whoever looks next: as a death of the endpoint's, because the shard never ran.
    assert (bench.runs.starts, bench.repairs.requeued) == (0, [])


@pytest.mark.parametrize("faults", [[RequestRejected("no")], [EngineBusy("x")] * 3])
async def test_a_canary_that_is_refused_or_meets_a_busy_engine_proves_nothing_and_its_shard_runs(
    bench: Bench, faults: list[BaseException]
) -> None:
    bench.engine.faults = {CANARY_TEXT: faults}
    assert (await bench.run_after_canary("a"))["succeeded"] == 1
    assert bench.runs.proven == [False]


async def test_a_canary_survives_a_passing_fault(bench: Bench) -> None:
    bench.engine.faults = {CANARY_TEXT: [EngineBusy("x")] * 2}
    assert (await bench.run_after_canary("a"))["succeeded"] == 1
    assert bench.runs.proven == [True]


async def test_a_part_of_a_split_shard_runs_its_own_requests_only(bench: Bench) -> None:
    bench.store(*(f"t{n}" for n in range(7)), shard=5)
    bench.runs.started = replace(bench.runs.started, root=5, offset=2, requests=3)
    assert (await bench.run_stored(alone=True))["succeeded"] == 3
    assert bench.engine.prompts == ["t2", "t3", "t4"]
    [settled] = bench.runs.settled
    assert (settled.ref.shard, settled.output_key) == (0, KEY)
    output = ShardOutput.parse(b64decode(settled.inline), 3)
    assert output is not None
    assert [line["custom_id"] for line in output.lines] == ["id-2", "id-3", "id-4"]


async def test_a_large_output_is_kept_as_long_as_its_batch_and_a_little_longer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, kept_ms = bench.payloads.put, []

    async def note(items: Mapping[str, bytes], ttl_ms: int) -> None:
        kept_ms.append(ttl_ms)
        await put(items, ttl_ms)

    monkeypatch.setattr(bench.payloads, "put", note)
    bench.payloads._inline_bytes = 10
    bench.runs.started = replace(bench.runs.started, keep_ms=5000)
    await bench.run("a" * 100)
    assert kept_ms == [5000 + PAYLOAD_SLACK_MS]


async def test_a_shard_that_comes_too_late_for_a_leaving_worker_goes_back_as_it_was(bench: Bench) -> None:
    wanted = ShardInput(batch="batch_" + "0" * 24, shard=3, attempt=2, endpoint="ep")
    assert await bench.worker.decline(wanted) == {"state": "refused", "reason": "leaving"}
    [requeued] = bench.repairs.requeued
    assert (requeued.ref.shard, requeued.blame, requeued.delay_ms) == (3, False, 0)
    assert (requeued.seen.state, requeued.seen.attempt) == (ShardState.SUBMITTED, 2)
    assert bench.engine.prompts == []


async def test_a_job_for_another_endpoint_is_refused_before_anything_moves(bench: Bench) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await bench.run("a", endpoint="other")
    assert caught.value.param == "endpoint"
    assert bench.queue.asked == []


class AnsweringEngine(ScriptedEngine):
    """Gives these answers, one after the other, the last one again and again; remembers what it was asked."""

    def __init__(self, *answers: str, stop_reason: str = "end_turn") -> None:
        super().__init__()
        self.asked: list[Prompt] = []
        self._answers = list(answers)
        self._stop_reason = stop_reason

    async def generate(self, prompt: Prompt) -> Completion:
        self.asked.append(prompt)
        text = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return Completion(text, input_tokens=3, output_tokens=len(text), stop_reason=self._stop_reason)


def answering(bench: Bench, *answers: str, stop_reason: str = "end_turn") -> AnsweringEngine:
    engine = AnsweringEngine(*answers, stop_reason=stop_reason)
    bench.worker = replace(bench.worker, engine=engine)
    return engine


NUMBER = {"response_format": schema_format({"type": "object", "properties": {"n": {"type": "integer"}}})}
RETRY = {**NUMBER, "on_invalid": "retry"}


async def test_an_answer_as_asked_for_is_asked_for_once_with_its_format(bench: Bench) -> None:
    engine = answering(bench, '{"n": 1}')
    assert (await bench.run_params(RETRY))["succeeded"] == 1
    [prompt] = engine.asked
    assert prompt.params["response_format"] == NUMBER["response_format"]
    assert "seed" not in prompt.params
    assert bench.lines()[0]["message"]["content"][0]["text"] == '{"n": 1}'


async def test_an_invalid_answer_is_errored_with_its_path_after_one_try(bench: Bench) -> None:
    engine = answering(bench, '{"n": "SECRET"}')
    assert (await bench.run_params(NUMBER))["errored"] == 1
    [line] = bench.lines()
    assert line["error"]["type"] == "model_error"
    assert line["error"]["message"] == 'Output validation failed at $.n: must meet {"type": "integer"}'
    assert (line["status"], line["message"], len(engine.asked)) == ("errored", None, 1)


async def test_a_retry_asks_again_with_another_seed_and_counts_the_answer_given(bench: Bench) -> None:
    engine = answering(bench, "no", "nor this", '{"n": 1}')
    output = await bench.run_params({**RETRY, "seed": 7})
    assert (output["succeeded"], output["output_tokens"]) == (1, len('{"n": 1}'))
    assert [prompt.params["seed"] for prompt in engine.asked] == [7, 8, 9]
    assert len({prompt.request_id for prompt in engine.asked}) == 3


async def test_without_a_seed_of_its_own_each_further_try_gets_a_fresh_one(bench: Bench) -> None:
    engine = answering(bench, "no")
    assert (await bench.run_params(RETRY))["errored"] == 1
    seeds = [prompt.params.get("seed") for prompt in engine.asked]
    assert seeds[0] is None
    assert len(set(seeds)) == 3


async def test_an_answer_that_was_cut_says_at_how_many_tokens(bench: Bench) -> None:
    answering(bench, '{"n": ', stop_reason="max_tokens")
    await bench.run_params({**NUMBER, "max_tokens": 4})
    assert "cut at max_tokens=4" in bench.lines()[0]["error"]["message"]


async def test_a_bad_schema_is_rejected_alone_and_costs_no_engine(bench: Bench) -> None:
    engine = answering(bench, "{}")
    bad = {"response_format": schema_format({"properties": {"n": {"type": "int"}}}), "on_invalid": "retry"}
    output = await bench.run_params({}, bad, {"response_format": {"type": "json_object"}})
    assert (output["succeeded"], output["errored"]) == (2, 1)
    error = bench.lines()[1]["error"]
    assert error["type"] == "invalid_request_error"
    assert "response_format.json_schema.schema at $.properties.n.type" in error["message"]
    assert len(engine.asked) == 2


async def test_a_request_that_fails_in_a_way_nobody_thought_of_takes_no_neighbour_along(bench: Bench) -> None:
    bench.engine.faults = {"bad": [ZeroDivisionError("PROMPT")]}
    output = await bench.run("good", "bad")
    assert (output["succeeded"], output["errored"]) == (1, 1)
    assert bench.lines()[1]["error"] == {"type": "api_error", "message": "Internal error"}
    assert bench.repairs.requeued == []


async def test_a_job_that_is_delivered_again_asks_the_engine_under_other_ids(bench: Bench) -> None:
    engine = answering(bench, "x")
    await bench.run("a")
    bench.runs.started = replace(bench.runs.started, epoch=2)
    await bench.run("a")
    first, second = engine.asked
    assert first.request_id != second.request_id


async def test_a_passing_fault_within_a_retry_is_survived(bench: Bench) -> None:
    engine = answering(bench, "no", '{"n": 1}')
    faults = [None, EngineBusy("x"), None]

    async def generate(prompt: Prompt) -> Completion:
        if fault := faults.pop(0):
            raise fault
        return await AnsweringEngine.generate(engine, prompt)

    engine.generate = generate  # type: ignore[method-assign]
    assert (await bench.run_params(RETRY))["succeeded"] == 1
    assert faults == []
