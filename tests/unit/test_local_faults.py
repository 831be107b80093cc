"""Faults of the local cloud without I/O: the table, the sources, what befalls jobs, and forged webhooks."""

import itertools
import json

import pytest

from tests.local_cloud.fault_sources import FaultSources, OwnFaults
from tests.local_cloud.fault_table import FaultTable, UnknownFaults
from tests.local_cloud.queue.core import FAULT_AFTER_S, EndpointQueue, Limits
from tests.local_cloud.queue.effects import JobEnded, StopRequested
from tests.local_cloud.queue.errors import JobNotFound
from tests.local_cloud.queue.faults import FAULTS
from tests.local_cloud.queue.forgery import Forger, oversized
from tests.local_cloud.queue.job import Job, JobState, JsonObject, Submission

ONCE = {"times": 1}
STARTED_S = FAULT_AFTER_S + 1


def test_a_rate_fires_by_its_seed_and_shifts_no_other_fault() -> None:
    def draws(seed: str, other: float = 0) -> list[bool]:
        table = FaultTable(FAULTS, seed)
        table.set_values({"run_500": 0.3, "run_429": other})
        return [(table.fires("run_429"), table.fires("run_500"))[1] for _ in range(1000)]

    assert draws("a") == draws("a", other=0.5) != draws("b")
    assert 200 < sum(draws("a")) < 400


def test_times_fire_on_the_next_occasions_and_then_never() -> None:
    table = FaultTable(FAULTS, "0")
    table.set_values({"run_500": {"times": 2}})
    assert [table.fires("run_500") for _ in range(4)] == [True, True, False, False]
    assert table.snapshot()["run_500"] == {"times": 0, "effect": FAULTS["run_500"], "fired": 2}
    table.set_values({"run_500": 1})
    assert table.fires("run_500")
    assert table.snapshot()["run_500"] == {"rate": 1.0, "effect": FAULTS["run_500"], "fired": 3}


def make_sources() -> tuple[FaultSources, FaultTable, FaultTable]:
    one, other = FaultTable({"one": "the first"}, "0"), FaultTable({"other": "the second"}, "0")
    sources = FaultSources()
    sources.add(OwnFaults(one))
    sources.add(OwnFaults(other))
    return sources, one, other


async def test_sources_are_set_and_shown_as_one() -> None:
    sources, one, other = make_sources()
    await sources.set({"one": 1, "other": {"times": 3}})
    assert one.fires("one")
    assert other.fires("other")
    assert await sources.get() == {
        "one": {"rate": 1.0, "effect": "the first", "fired": 1},
        "other": {"times": 2, "effect": "the second", "fired": 1},
    }


@pytest.mark.parametrize(
    "mistake", [{"nonsense": 1}, {"other": 2}, {"other": -1}, {"other": True}, {"other": {"times": -1}}]
)
async def test_a_mistake_in_one_source_changes_nothing_in_any(mistake: dict[str, object]) -> None:
    sources, one, _ = make_sources()
    with pytest.raises(ValueError, match=next(iter(mistake))):
        await sources.set({"one": 1, **mistake})
    assert not one.fires("one")


async def test_unknown_faults_are_told_with_the_known_ones() -> None:
    sources, _, _ = make_sources()
    with pytest.raises(UnknownFaults, match="unknown faults: run_418; known are: one, other"):
        await sources.set({"run_418": 1})


def make_queue(**values: object) -> EndpointQueue:
    table, numbers = FaultTable(FAULTS, "0"), itertools.count()
    table.set_values(values)
    queue = EndpointQueue(lambda: f"id{next(numbers)}", Limits(), table.fires)
    for worker_id in ("w1", "w2"):
        queue.workers.expect(worker_id)
        queue.take(worker_id, 1, 0)
    return queue


def start(queue: EndpointQueue) -> Job:
    """A job that runs on w1 and met whatever had to befall it."""
    job = queue.submit(Submission({"do": "something"}), 0)
    assert queue.take("w1", 1, 1) == [job]
    queue.advance(STARTED_S)
    return job


@pytest.mark.parametrize(
    ("fault", "state"),
    [("fail_unstarted_job", JobState.FAILED), ("complete_unstarted_job", JobState.COMPLETED)],
)
def test_a_job_may_end_instead_of_reaching_a_worker(fault: str, state: JobState) -> None:
    queue = make_queue(**{fault: ONCE})
    job, next_job = (queue.submit(Submission({"do": "something"}), 0) for _ in range(2))
    assert queue.take("w1", 1, 1) == [next_job]
    assert (job.state, job.worker_id, "output" in job.result) == (state, None, False)
    assert JobEnded(job) in queue.drain_effects()


def test_a_job_that_waits_may_be_forgotten() -> None:
    queue = make_queue(forget_queued_job=ONCE)
    job = queue.submit(Submission({"do": "something"}), 0)
    assert queue.take("w1", 1, 1) == []
    with pytest.raises(JobNotFound):
        queue.get(job.id)


def test_a_running_job_may_be_forgotten_and_its_end_is_ignored() -> None:
    queue = make_queue(forget_running_job=ONCE)
    job = start(queue)
    with pytest.raises(JobNotFound):
        queue.get(job.id)
    assert not queue.finish("w1", job.id, {"output": 1}, 2)


@pytest.mark.parametrize(
    ("fault", "state"),
    [("cancel_running_job", JobState.CANCELLED), ("overrun_running_job", JobState.FAILED)],
)
def test_a_running_job_may_be_stopped_in_its_worker(fault: str, state: JobState) -> None:
    queue = make_queue(**{fault: ONCE})
    job = start(queue)
    assert job.state is state
    assert StopRequested("w1") in queue.drain_effects()
    assert queue.collect_stops("w1") == [job.id]


def test_a_running_job_may_be_delivered_again_to_another_worker() -> None:
    queue = make_queue(requeue_running_job=1)
    job = start(queue)
    assert queue.take("w1", 1, 2) == []
    assert queue.take("w2", 1, 2) == [job]
    assert not queue.finish("w1", job.id, {"output": "first"}, 3)
    assert queue.finish("w2", job.id, {"output": "second"}, 3)


def test_a_running_job_is_delivered_again_to_its_worker_where_there_is_no_other() -> None:
    queue = make_queue(requeue_running_job=ONCE)
    queue.remove_worker("w2", 0)
    job = start(queue)
    assert queue.take("w1", 1, 2) == [job]


def test_an_output_may_get_lost() -> None:
    queue = make_queue(drop_output=ONCE)
    job = start(queue)
    assert queue.finish("w1", job.id, {"output": 1}, 2)
    assert (job.state, job.result) == (JobState.COMPLETED, {})


def test_pings_are_lost_of_workers_that_run_jobs() -> None:
    queue = make_queue(lose_ping=1)
    start(queue)
    for worker_id in ("w1", "w2"):
        queue.ping(worker_id, 9)
    queue.advance(12)
    assert queue.workers.health()["unhealthy"] == 1


def test_a_callers_own_job_is_spared() -> None:
    faults = [name for name in FAULTS if name.endswith("_job") or name == "drop_output"]
    queue = make_queue(**dict.fromkeys(faults, 1))
    job = queue.submit(Submission({"do": "something"}), 0, sync=True)
    assert queue.take("w1", 1, 1) == [job]
    queue.advance(STARTED_S)
    assert queue.finish("w1", job.id, {"output": 1}, 2)
    assert job.result == {"output": 1}


def real_body(batch: str, shard: int) -> JsonObject:
    job_input: JsonObject = {"batch": batch, "shard": shard, "attempt": 1, "endpoint": "mistral"}
    return {"id": f"{batch}-{shard}", "input": job_input, "output": [{}], "status": "COMPLETED"}


def test_forged_webhooks_lie_about_their_status_their_shard_or_their_batch() -> None:
    forger = Forger("0")
    real = [real_body(batch, shard) for shard in range(20) for batch in ("a", "b")]
    forged = [forger.forged(body) for body in real]
    assert all(lie["status"] != body["status"] for lie, body in zip(forged, real, strict=True))
    inputs = [(lie["input"], body["input"]) for lie, body in zip(forged, real, strict=True)]
    assert any(lie == truth for lie, truth in inputs)
    assert any(lie != truth for lie, truth in inputs)
    assert forged == [Forger("0").forged(body) for body in real[:1]] + forged[1:]


def test_an_oversized_webhook_is_over_64_kb() -> None:
    body = real_body("a", 1)
    assert len(json.dumps(oversized(body))) > 64 * 1024
    assert oversized(body)["input"] == body["input"]
