"""The queue of one endpoint in real time: carries out the core's effects and holds the long polls."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tests.local_cloud.queue.core import EndpointQueue
from tests.local_cloud.queue.effects import (
    ChunkAdded,
    Effect,
    JobEnded,
    JobGone,
    JobsWaiting,
    LostWorkerIdle,
    RestartRequested,
    StopRequested,
    WorkerEffect,
    WorkerLost,
)
from tests.local_cloud.queue.job import Job, JsonObject, Submission
from tests.local_cloud.queue.waiters import Waiters
from tests.local_cloud.queue.workers import WorkerState

# A worker that drains asks again until it has seen its signal: answer it soon, but not in a hot loop.
_DRAINING_HOLD_S = 0.2


@dataclass(frozen=True, slots=True)
class _Taker:
    worker_id: str
    count: int
    jobs: asyncio.Future[list[Job]]


class LiveEndpoint:
    """One endpoint; its methods are those of the core plus the waiting ones. Runs on one event loop."""

    def __init__(
        self,
        name: str,
        core: EndpointQueue,
        clock: Callable[[], float],
        *,
        on_end: Callable[[Job], None],
        on_worker: Callable[[str, WorkerEffect], None],
    ) -> None:
        self.name = name
        self.core = core
        self._clock = clock
        self._on_end = on_end
        self._on_worker = on_worker
        self._takers: list[_Taker] = []
        self._job_waiters = Waiters()
        self._stop_waiters = Waiters()
        self._ready_waiters = Waiters()

    def submit(self, submission: Submission, *, sync: bool) -> Job:
        job = self.core.submit(submission, self._clock(), sync=sync)
        self._carry_out()
        return job

    def cancel(self, job_id: str) -> Job:
        job = self.core.cancel(job_id, self._clock())
        self._carry_out()
        return job

    def retry(self, job_id: str) -> Job:
        job = self.core.retry(job_id, self._clock())
        self._carry_out()
        return job

    def overrun(self) -> int:
        """Ends the running jobs as if their time were up; the number of them."""
        overrun = self.core.overrun_running(self._clock())
        self._carry_out()
        return overrun

    def purge(self) -> int:
        removed = self.core.purge()
        self._carry_out()
        return removed

    async def wait_end(self, job_id: str, timeout_s: float) -> Job:
        """The job once it ended, or as it is after the time; raises JobNotFound."""
        until_s = self._clock() + timeout_s
        while True:
            job = self.core.get(job_id)
            left_s = until_s - self._clock()
            if not job.live or left_s <= 0:
                return job
            await self._job_waiters.wait(job_id, left_s)

    async def wait_chunks(self, job_id: str, timeout_s: float) -> tuple[Job, list[object]]:
        """The job and its new chunks, as soon as there are any or the job ended; raises JobNotFound."""
        until_s = self._clock() + timeout_s
        while True:
            job = self.core.get(job_id)
            left_s = until_s - self._clock()
            if job.chunks or not job.live or left_s <= 0:
                return job, self.core.drain_chunks(job_id)
            await self._job_waiters.wait(job_id, left_s)

    async def take(self, worker_id: str, count: int, hold_s: float) -> list[Job]:
        """Jobs for a worker, as soon as there are any; none after the hold."""
        was_ready = self.ready(worker_id)
        jobs = self.core.take(worker_id, count, self._clock())
        self._carry_out()
        if not was_ready:
            self._ready_waiters.wake(worker_id)
        if jobs:
            return jobs
        loop = asyncio.get_running_loop()
        taker = _Taker(worker_id, count, loop.create_future())
        timer = loop.call_later(self._hold_s(worker_id, hold_s), _release, taker)
        self._takers.append(taker)
        try:
            return await taker.jobs
        except asyncio.CancelledError:
            # The worker hung up in the moment that it was given jobs: nobody else would ever run them.
            if taker.jobs.done() and not taker.jobs.cancelled():
                self.core.give_back(taker.jobs.result())
                self._carry_out()
            raise
        finally:
            timer.cancel()
            if taker in self._takers:
                self._takers.remove(taker)

    async def stops(self, worker_id: str, hold_s: float) -> list[str]:
        """Ids of jobs the worker must stop, as soon as there are any; none after the hold."""
        stops = self.core.collect_stops(worker_id)
        if not stops:
            await self._stop_waiters.wait(worker_id, self._hold_s(worker_id, hold_s))
            stops = self.core.collect_stops(worker_id)
        return stops

    def finish(self, worker_id: str, job_id: str, posted: JsonObject) -> bool:
        accepted = self.core.finish(worker_id, job_id, posted, self._clock())
        self._carry_out()
        return accepted

    def add_chunk(self, worker_id: str, job_id: str, chunk: object) -> bool:
        accepted = self.core.add_chunk(worker_id, job_id, chunk)
        self._carry_out()
        return accepted

    def ping(self, worker_id: str, *, in_hand: bool) -> None:
        self.core.ping(worker_id, self._clock(), in_hand=in_hand)
        self._carry_out()

    def ready(self, worker_id: str) -> bool:
        worker = self.core.workers.find(worker_id)
        return worker is not None and worker.state is not WorkerState.INITIALIZING

    async def wait_ready(self, worker_id: str, timeout_s: float) -> bool:
        """Whether the worker asks for jobs within the time."""
        until_s = self._clock() + timeout_s
        while worker_id in self.core.workers and not self.ready(worker_id):
            left_s = until_s - self._clock()
            if left_s <= 0:
                return False
            await self._ready_waiters.wait(worker_id, left_s)
        return self.ready(worker_id)

    def drain_worker(self, worker_id: str) -> None:
        """Gives the worker no more jobs and answers its long polls, which would delay its exit."""
        self.core.drain_worker(worker_id)
        for taker in self._takers:
            if taker.worker_id == worker_id:
                _release(taker)
        self._stop_waiters.wake(worker_id)

    def remove_worker(self, worker_id: str) -> None:
        self.core.remove_worker(worker_id, self._clock())
        self._takers = [taker for taker in self._takers if taker.worker_id != worker_id]
        self._ready_waiters.wake(worker_id)
        self._stop_waiters.wake(worker_id)
        self._carry_out()

    def advance(self) -> None:
        self.core.advance(self._clock())
        self._carry_out()

    def _hold_s(self, worker_id: str, hold_s: float) -> float:
        worker = self.core.workers.find(worker_id)
        draining = worker is None or worker.state is WorkerState.DRAINING
        return _DRAINING_HOLD_S if draining else hold_s

    def _carry_out(self) -> None:
        while effects := self.core.drain_effects():
            for effect in effects:
                self._apply(effect)

    def _apply(self, effect: Effect) -> None:
        match effect:
            case JobsWaiting():
                self._serve_takers()
            case JobEnded(job):
                self._job_waiters.wake(job.id)
                self._on_end(job)
            case JobGone(job_id) | ChunkAdded(job_id):
                self._job_waiters.wake(job_id)
            case StopRequested(worker_id):
                self._stop_waiters.wake(worker_id)
            case RestartRequested() | WorkerLost() | LostWorkerIdle():
                self._on_worker(self.name, effect)

    def _serve_takers(self) -> None:
        for taker in list(self._takers):
            if not self.core.has_waiting():
                return
            if taker.jobs.done():
                continue
            jobs = self.core.take(taker.worker_id, taker.count, self._clock())
            if jobs:
                taker.jobs.set_result(jobs)
                self._takers.remove(taker)


def _release(taker: _Taker) -> None:
    if not taker.jobs.done():
        taker.jobs.set_result([])
