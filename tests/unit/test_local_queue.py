"""The local queue's core with an advanced clock: states, limits, retention and lost workers."""

import itertools

import pytest

from tests.local_cloud.queue.bodies import parse_submission, parse_worker_post
from tests.local_cloud.queue.core import EndpointQueue, Limits
from tests.local_cloud.queue.effects import (
    JobEnded,
    JobGone,
    LostWorkerIdle,
    RestartRequested,
    StopRequested,
    WorkerLost,
)
from tests.local_cloud.queue.errors import (
    BadSubmission,
    BodyTooLarge,
    JobNotFound,
    NotRetryable,
    OutputRefused,
)
from tests.local_cloud.queue.job import (
    Job,
    JobState,
    JsonObject,
    Policy,
    Submission,
    status_view,
    webhook_body,
)
from tests.local_cloud.queue.rate_limits import RateLimits
from tests.local_cloud.worker_pool import restart_delay_s

WORKER = "w1"
PLAIN = Policy()


def make_queue(*workers: str) -> EndpointQueue:
    numbers = itertools.count()
    queue = EndpointQueue(lambda: f"id{next(numbers)}", Limits())
    for worker_id in workers or (WORKER,):
        queue.workers.expect(worker_id)
    return queue


def work(policy: Policy = PLAIN) -> Submission:
    return Submission({"do": "something"}, policy=policy)


def start(queue: EndpointQueue, now_s: float = 0, policy: Policy = PLAIN) -> Job:
    job = queue.submit(work(policy), now_s)
    assert queue.take(WORKER, 1, now_s) == [job]
    return job


def state_of(queue: EndpointQueue, job: Job) -> JobState:
    return queue.get(job.id).state


def test_ids_say_how_a_job_was_submitted() -> None:
    queue = make_queue()
    assert queue.submit(work(), 0).id == "id0-u1"
    assert queue.submit(work(), 0, sync=True).id == "sync-id1-u1"


def test_jobs_are_taken_in_order_up_to_the_count_and_low_priority_last() -> None:
    queue = make_queue()
    low = queue.submit(work(Policy(low_priority=True)), 0)
    first, second = queue.submit(work(), 0), queue.submit(work(), 0)
    assert queue.take(WORKER, 2, 1) == [first, second]
    assert queue.take(WORKER, 2, 1) == [low]
    assert queue.take(WORKER, 2, 1) == []


def test_a_completed_job_tells_its_times_and_worker() -> None:
    queue = make_queue()
    job = queue.submit(work(), 10)
    queue.take(WORKER, 1, 10.5)
    queue.finish(WORKER, job.id, {"output": {"n": 1}}, 12.5)
    assert status_view(job) == {
        "id": job.id,
        "status": "COMPLETED",
        "delayTime": 500,
        "executionTime": 2000,
        "output": {"n": 1},
        "workerId": WORKER,
    }
    assert [effect for effect in queue.drain_effects() if isinstance(effect, JobEnded)] == [JobEnded(job)]


@pytest.mark.parametrize(
    ("posted", "state", "result"),
    [
        ({"output": None}, JobState.COMPLETED, {"output": None}),
        ({"error": "broken"}, JobState.FAILED, {"error": "broken"}),
        ({"output": 1, "error": "broken"}, JobState.FAILED, {"output": 1, "error": "broken"}),
        ({"error": {"type": "broken"}}, JobState.COMPLETED, {}),
        ({}, JobState.COMPLETED, {}),
    ],
)
def test_only_an_error_that_is_a_string_makes_a_failure(
    posted: JsonObject, state: JobState, result: JsonObject
) -> None:
    queue = make_queue()
    job = start(queue)
    queue.finish(WORKER, job.id, posted, 1)
    assert (job.state, job.result) == (state, result)


def test_an_empty_input_is_dropped_and_the_job_fails_when_it_would_run() -> None:
    queue = make_queue()
    empty, real = queue.submit(Submission({}), 0), queue.submit(work(), 0)
    assert empty.state is JobState.IN_QUEUE
    assert queue.take(WORKER, 1, 1) == [real]
    assert status_view(empty)["error"] == "job timed out after 1 retries"


@pytest.mark.parametrize(("sync", "keep_s"), [(False, 1800), (True, 60)])
def test_a_result_is_kept_for_its_retention_and_then_gone(sync: bool, keep_s: float) -> None:
    queue = make_queue()
    job = queue.submit(work(), 0, sync=sync)
    queue.take(WORKER, 1, 0)
    queue.finish(WORKER, job.id, {"output": 1}, 5)
    queue.advance(5 + keep_s - 0.1)
    assert queue.get(job.id) is job
    queue.advance(5 + keep_s)
    with pytest.raises(JobNotFound):
        queue.get(job.id)
    assert queue.counts()[JobState.COMPLETED] == 1


def test_a_run_over_its_execution_timeout_fails_and_is_stopped() -> None:
    queue = make_queue()
    job = start(queue, 100, Policy(execution_timeout_s=7))
    queue.advance(106.9)
    assert state_of(queue, job) is JobState.IN_PROGRESS
    queue.drain_effects()
    queue.advance(107)
    assert status_view(job)["error"] == "executionTimeout exceeded"
    assert queue.drain_effects() == [StopRequested(WORKER), JobEnded(job)]
    assert queue.collect_stops(WORKER) == [job.id]
    assert queue.collect_stops(WORKER) == []


def test_the_execution_timeout_of_a_second_run_counts_from_its_own_start() -> None:
    queue = make_queue(WORKER, "w2")
    job = start(queue, 0, Policy(execution_timeout_s=10))
    queue.remove_worker(WORKER, 8)
    queue.take("w2", 1, 8)
    queue.ping("w2", 16)
    queue.advance(17.9)
    assert state_of(queue, job) is JobState.IN_PROGRESS
    queue.ping("w2", 18)
    queue.advance(18)
    assert state_of(queue, job) is JobState.FAILED


@pytest.mark.parametrize("running", [False, True])
def test_ttl_counts_from_submission_and_deletes_even_a_running_job(running: bool) -> None:
    queue = make_queue()
    job = queue.submit(work(Policy(ttl_s=5)), 0)
    if running:
        queue.take(WORKER, 1, 3)
    queue.drain_effects()
    queue.advance(5)
    with pytest.raises(JobNotFound):
        queue.get(job.id)
    assert queue.drain_effects()[-1] == JobGone(job.id)
    assert queue.collect_stops(WORKER) == ([job.id] if running else [])
    assert queue.take(WORKER, 1, 6) == []


def test_a_lost_workers_jobs_are_queued_once_more_at_the_front_and_then_fail() -> None:
    queue = make_queue(WORKER, "w2")
    first, second, third = (queue.submit(work(), 0) for _ in range(3))
    queue.take(WORKER, 2, 0)
    queue.remove_worker(WORKER, 1)
    assert queue.take("w2", 3, 2) == [first, second, third]
    queue.remove_worker("w2", 3)
    assert (first.state, second.state, third.state) == (JobState.FAILED, JobState.FAILED, JobState.IN_QUEUE)
    view = status_view(first)
    assert (view["error"], view["retries"]) == ("job timed out after 1 retries", 1)


def test_a_worker_that_missed_its_pings_is_replaced_and_ended_once_it_is_heard_of_with_empty_hands() -> None:
    queue = make_queue(WORKER, "w2")
    job = start(queue, 0)
    queue.ping(WORKER, 5)
    queue.advance(15)
    assert state_of(queue, job) is JobState.IN_PROGRESS
    queue.advance(15.1)
    assert state_of(queue, job) is JobState.IN_QUEUE
    assert queue.workers.health()["unhealthy"] == 1
    assert WorkerLost(WORKER) in queue.drain_effects()
    assert queue.take(WORKER, 1, 16) == []
    assert queue.take("w2", 1, 16) == [job]
    queue.ping(WORKER, 17, in_hand=True)
    assert LostWorkerIdle(WORKER) not in queue.drain_effects()
    queue.ping(WORKER, 18, in_hand=False)
    queue.ping(WORKER, 19, in_hand=False)
    assert queue.drain_effects().count(LostWorkerIdle(WORKER)) == 1
    assert queue.take(WORKER, 1, 20) == []


def test_a_reply_for_a_job_that_the_worker_no_longer_holds_changes_nothing() -> None:
    queue = make_queue(WORKER, "w2")
    job = start(queue, 0)
    queue.advance(11)
    queue.take("w2", 1, 11)
    assert not queue.finish(WORKER, job.id, {"output": "late"}, 12)
    assert state_of(queue, job) is JobState.IN_PROGRESS
    assert queue.finish("w2", job.id, {"output": "right"}, 13)
    assert not queue.finish("w2", job.id, {"output": "again"}, 14)
    assert job.result == {"output": "right"}


def test_cancel_stops_a_running_job_and_leaves_an_ended_one_alone() -> None:
    queue = make_queue()
    running, waiting = start(queue), queue.submit(work(), 0)
    assert queue.cancel(running.id, 1).state is JobState.CANCELLED
    assert queue.collect_stops(WORKER) == [running.id]
    assert queue.cancel(waiting.id, 1).state is JobState.CANCELLED
    assert queue.take(WORKER, 1, 1) == []
    done = start(queue, 2)
    queue.finish(WORKER, done.id, {"output": 1}, 3)
    assert queue.cancel(done.id, 4).state is JobState.COMPLETED


def test_retry_takes_only_failed_and_timed_out_jobs_and_starts_afresh() -> None:
    queue = make_queue()
    job = start(queue, policy=Policy(execution_timeout_s=3600))
    with pytest.raises(NotRetryable):
        queue.retry(job.id, 1)
    queue.finish(WORKER, job.id, {"error": "broken"}, 1)
    assert status_view(queue.retry(job.id, 2)) == {"id": job.id, "status": "IN_QUEUE"}
    assert queue.take(WORKER, 1, 3) == [job]
    assert status_view(job)["delayTime"] == 1000
    queue.ping(WORKER, 1801)
    queue.advance(1801)
    assert queue.health()["jobs"] == {
        "completed": 0,
        "failed": 1,
        "inProgress": 1,
        "inQueue": 0,
        "retried": 1,
    }


def test_purge_deletes_waiting_jobs_only() -> None:
    queue = make_queue()
    running, waiting = start(queue), queue.submit(work(), 0)
    assert queue.purge() == 1
    assert queue.get(running.id).state is JobState.IN_PROGRESS
    with pytest.raises(JobNotFound):
        queue.get(waiting.id)


def test_progress_shows_as_output_and_the_end_replaces_it() -> None:
    queue = make_queue()
    job = start(queue)
    assert queue.report_progress(WORKER, job.id, "half", overwrite_ended=False)
    assert status_view(job)["output"] == "half"
    queue.finish(WORKER, job.id, {"error": "broken"}, 1)
    assert status_view(job).get("output") is None
    assert not queue.report_progress(WORKER, job.id, "late", overwrite_ended=False)


def test_progress_after_the_end_can_turn_a_completed_job_back_to_running() -> None:
    queue = make_queue()
    job = start(queue, policy=Policy(execution_timeout_s=60))
    queue.finish(WORKER, job.id, {"output": "done"}, 1)
    assert queue.report_progress(WORKER, job.id, "late", overwrite_ended=True)
    assert (status_view(job)["status"], status_view(job)["output"]) == ("IN_PROGRESS", "late")
    queue.advance(60)
    assert state_of(queue, job) is JobState.FAILED


def test_jobs_given_back_are_first_again_and_not_counted_as_lost() -> None:
    queue = make_queue()
    first, second = start(queue), queue.submit(work(), 0)
    queue.give_back([first])
    assert queue.take(WORKER, 2, 1) == [first, second]
    assert first.requeues == 0


def test_a_draining_worker_gets_no_jobs() -> None:
    queue = make_queue()
    start(queue)
    queue.drain_worker(WORKER)
    queue.submit(work(), 0)
    assert queue.take(WORKER, 1, 1) == []


def test_stop_pod_asks_for_a_new_worker() -> None:
    queue = make_queue()
    job = start(queue)
    queue.finish(WORKER, job.id, {"output": 1, "stopPod": True}, 1)
    assert RestartRequested(WORKER) in queue.drain_effects()
    assert state_of(queue, job) is JobState.COMPLETED


def test_worker_health_counts_each_kind() -> None:
    queue = make_queue("new", "idle", WORKER)
    queue.take("idle", 1, 0)
    start(queue)
    assert queue.workers.health() == {
        "idle": 1,
        "initializing": 1,
        "ready": 2,
        "running": 1,
        "throttled": 0,
        "unhealthy": 0,
    }


def test_a_webhook_body_echoes_input_and_url() -> None:
    queue = make_queue()
    job = queue.submit(Submission({"a": 1}, webhook="https://x/?_token=t"), 0)
    queue.take(WORKER, 1, 1)
    queue.finish(WORKER, job.id, {"error": "broken"}, 3)
    assert webhook_body(job) == {
        "delayTime": 1000,
        "error": "broken",
        "executionTime": 2000,
        "id": job.id,
        "input": {"a": 1},
        "output": None,
        "status": "FAILED",
        "webhook": "https://x/?_token=t",
    }


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b"{}", "input"),
        (b'{"input": 3}', "input"),
        (b'{"input": {}, "webhook": "ftp://x"}', "webhook"),
        (b'{"input": {}, "policy": {"executionTimeout": 4999}}', "executionTimeout"),
        (b'{"input": {}, "policy": {"executionTimeout": 604800001}}', "executionTimeout"),
        (b'{"input": {}, "policy": {"ttl": 0}}', "ttl"),
        (b'{"input": {}, "policy": 1}', "policy"),
    ],
)
def test_a_body_that_cannot_become_a_job_is_refused_by_name(raw: bytes, named: str) -> None:
    with pytest.raises(BadSubmission, match=named):
        parse_submission(raw, limit_bytes=1000, min_execution_timeout_ms=5000)


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(BodyTooLarge):
        parse_submission(b"{" * 11, limit_bytes=10, min_execution_timeout_ms=5000)


@pytest.mark.parametrize("raw", [b'{"output": NaN}', b'{"output": Infinity}', b"nonsense", b"[]"])
def test_a_workers_reply_that_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(OutputRefused):
        parse_worker_post(raw)


def test_rate_limits_count_calls_in_a_window_and_at_once() -> None:
    limits = RateLimits()
    assert [limits.enter("cancel", 5) for _ in range(21)] == [True] * 20 + [False]
    for _ in range(80):
        limits.leave("cancel")
        assert limits.enter("cancel", 6)
    limits.leave("cancel")
    assert not limits.enter("cancel", 9.9)
    assert limits.enter("cancel", 10)
    assert all(limits.enter("health", 10) for _ in range(5000))


def test_restarts_are_free_at_first_and_bounded_in_a_crash_loop() -> None:
    delays = [restart_delay_s(deaths) for deaths in range(1, 12)]
    assert delays[:3] == [0, 0, 0]
    assert delays == sorted(delays)
    assert delays[-1] == 5
