"""The local queue's long polls: who is woken, when, and what happens if the one who waits hangs up."""

import asyncio
import itertools

import pytest

from tests.local_cloud.queue.core import EndpointQueue, Limits
from tests.local_cloud.queue.errors import JobNotFound
from tests.local_cloud.queue.job import Job, Policy, Submission
from tests.local_cloud.queue.live import LiveEndpoint

LONG_S = 60.0
WORK = Submission({"do": "something"})


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make_endpoint(*workers: str) -> tuple[LiveEndpoint, Clock, list[Job]]:
    numbers, clock, ended = itertools.count(), Clock(), list[Job]()
    core = EndpointQueue(lambda: f"id{next(numbers)}", Limits())
    for worker_id in workers:
        core.workers.expect(worker_id)
    endpoint = LiveEndpoint("e", core, clock, on_end=ended.append, on_worker=lambda endpoint, effect: None)
    return endpoint, clock, ended


async def test_a_waiting_take_gets_a_job_as_soon_as_it_is_submitted() -> None:
    endpoint, _, _ = make_endpoint("w1")
    take = await started(endpoint, "w1")
    job = endpoint.submit(WORK, sync=False)
    assert await take == [job]


async def test_jobs_go_to_the_workers_in_the_order_they_asked() -> None:
    endpoint, _, _ = make_endpoint("w1", "w2")
    takes = [await started(endpoint, "w2"), await started(endpoint, "w1")]
    jobs = [endpoint.submit(WORK, sync=False) for _ in range(2)]
    assert [await take for take in takes] == [[jobs[0]], [jobs[1]]]


async def test_a_take_whose_worker_hangs_up_just_then_loses_no_job() -> None:
    endpoint, _, _ = make_endpoint("w1", "w2")
    take = await started(endpoint, "w1")
    job = endpoint.submit(WORK, sync=False)
    take.cancel()
    with pytest.raises(asyncio.CancelledError):
        await take
    assert await endpoint.take("w2", 1, LONG_S) == [job]
    assert job.requeues == 0


async def test_a_take_is_empty_after_its_hold() -> None:
    endpoint, _, _ = make_endpoint("w1")
    assert await endpoint.take("w1", 1, 0.001) == []
    job = endpoint.submit(WORK, sync=False)
    assert await endpoint.take("w1", 1, LONG_S) == [job]


async def test_draining_a_worker_answers_its_polls_at_once() -> None:
    endpoint, _, _ = make_endpoint("w1")
    take = await started(endpoint, "w1")
    stops = asyncio.create_task(endpoint.stops("w1", LONG_S))
    await asyncio.sleep(0)
    endpoint.drain_worker("w1")
    assert (await take, await stops) == ([], [])


async def test_a_stop_signal_reaches_the_waiting_worker() -> None:
    endpoint, _, ended = make_endpoint("w1")
    job = endpoint.submit(WORK, sync=False)
    await endpoint.take("w1", 1, LONG_S)
    stops = asyncio.create_task(endpoint.stops("w1", LONG_S))
    await asyncio.sleep(0)
    endpoint.cancel(job.id)
    assert await stops == [job.id]
    assert ended == [job]


async def test_all_who_wait_for_a_job_are_woken_by_its_end() -> None:
    endpoint, _, _ = make_endpoint("w1")
    job = endpoint.submit(WORK, sync=True)
    await endpoint.take("w1", 1, LONG_S)
    waits = [asyncio.create_task(endpoint.wait_end(job.id, LONG_S)) for _ in range(2)]
    await asyncio.sleep(0)
    endpoint.finish("w1", job.id, {"output": 1})
    assert [await wait for wait in waits] == [job, job]


async def test_who_waits_for_a_job_that_is_deleted_learns_that_it_is_gone() -> None:
    endpoint, clock, _ = make_endpoint("w1")
    job = endpoint.submit(Submission({"a": 1}, policy=Policy(ttl_s=5)), sync=True)
    wait = asyncio.create_task(endpoint.wait_end(job.id, LONG_S))
    await asyncio.sleep(0)
    clock.now_s = 5
    endpoint.advance()
    with pytest.raises(JobNotFound):
        await wait


async def test_a_worker_is_ready_once_it_asks_for_a_job() -> None:
    endpoint, _, _ = make_endpoint("w1", "w2")
    ready = asyncio.create_task(endpoint.wait_ready("w1", LONG_S))
    gone = asyncio.create_task(endpoint.wait_ready("w2", LONG_S))
    await asyncio.sleep(0)
    endpoint.ping("w1", in_hand=False)
    assert not endpoint.ready("w1")
    take = await started(endpoint, "w1")
    endpoint.remove_worker("w2")
    assert (await ready, await gone) == (True, False)
    endpoint.drain_worker("w1")
    await take


async def started(endpoint: LiveEndpoint, worker_id: str) -> "asyncio.Task[list[Job]]":
    """A take that waits for a job."""
    take = asyncio.create_task(endpoint.take(worker_id, 1, LONG_S))
    await asyncio.sleep(0)
    return take
