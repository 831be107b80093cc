"""The queue of one endpoint: every state change of its jobs, without I/O, clock or randomness.

Theory of operation. A job waits (IN_QUEUE), is taken by a worker (IN_PROGRESS) and ends; ended jobs are kept for a
while and then forgotten. Each call takes `now_s`; `advance` applies whatever only time brings about (a run over its
execution timeout, a job over its ttl, retention, silent workers). What the outside has to do as a consequence
(wake callers, call webhooks, stop jobs, replace workers) is collected as effects and fetched with `drain_effects`.

A worker's reply counts only while that worker holds the job: a reply that arrives after a cancel, a timeout or a
re-queue changes nothing. A lost worker's jobs are queued once more, at the front, and fail the second time. A worker
that was lost gets no job ever again; should it be heard of, it may finish what it has in hand and must leave then.

Faults befall jobs of /run at three moments: when one is taken, a moment after its start, and when its end is posted.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.local_cloud.queue.backlog import Backlog
from tests.local_cloud.queue.effects import (
    ChunkAdded,
    Effect,
    JobEnded,
    JobGone,
    JobsWaiting,
    LostWorkerIdle,
    RestartRequested,
    StopRequested,
    WorkerLost,
)
from tests.local_cloud.queue.errors import JobNotFound, NotRetryable
from tests.local_cloud.queue.faults import Fires, never
from tests.local_cloud.queue.job import RETRYABLE_STATES, SYNC_ID, Job, JobState, JsonObject, Submission
from tests.local_cloud.queue.workers import Worker, WorkerState, WorkerTable

LOST_WORKER_ERROR = "job timed out after 1 retries"
OVERRUN_ERROR = "executionTimeout exceeded"
# A fault of a running job comes this long after its start: its worker has begun by then.
FAULT_AFTER_S = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds a result is kept after the end, and seconds without a ping after which a worker counts as lost."""

    keep_s: float = 1800.0
    keep_sync_s: float = 60.0
    ping_grace_s: float = 10.0
    max_requeues: int = 1


class EndpointQueue:
    """The jobs and workers of one endpoint."""

    def __init__(self, new_id: Callable[[], str], limits: Limits, fires: Fires = never) -> None:
        """`fires` says of each fault whether it happens on this occasion."""
        self.workers = WorkerTable()
        self.ended: Counter[JobState] = Counter()
        self.retried = 0
        self._new_id = new_id
        self._limits = limits
        self._fires = fires
        self._jobs: dict[str, Job] = {}
        self._backlog = Backlog(self._jobs.get)
        # (due time, tie breaker, job id): when to look at a job again. An entry may be outdated: looking decides.
        self._agenda: list[tuple[float, int, str]] = []
        self._agenda_entries = 0
        self._effects: list[Effect] = []

    # What callers do.

    def submit(self, submission: Submission, now_s: float, *, sync: bool = False) -> Job:
        job_id = f"{SYNC_ID if sync else ''}{self._new_id()}-u1"
        job = Job(job_id, submission, sync, now_s)
        self._jobs[job.id] = job
        self._enqueue(job)
        self._schedule(now_s + submission.policy.ttl_s, job)
        return job

    def get(self, job_id: str) -> Job:
        """The job; raises JobNotFound."""
        job = self._jobs.get(job_id)
        if job is None:
            raise JobNotFound
        return job

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def cancel(self, job_id: str, now_s: float) -> Job:
        """Cancels a live job and tells its worker to stop it; an ended one stays as it is."""
        job = self.get(job_id)
        if job.live:
            self._stop_run(job)
            self._end(job, JobState.CANCELLED, {}, now_s)
        return job

    def retry(self, job_id: str, now_s: float) -> Job:
        """Queues a failed or timed out job afresh; raises NotRetryable."""
        job = self.get(job_id)
        if job.state not in RETRYABLE_STATES:
            raise NotRetryable(f"job is {job.state.value}: only FAILED and TIMED_OUT can be retried")
        self.retried += 1
        job.submitted_s, job.requeues, job.ended_s = now_s, 0, None
        self._enqueue(job)
        self._schedule(now_s + job.submission.policy.ttl_s, job)
        return job

    def purge(self) -> int:
        """Deletes the jobs that wait; the number of them."""
        waiting = [job for job in self._jobs.values() if job.state is JobState.IN_QUEUE]
        for job in waiting:
            self._forget(job)
        self._backlog.clear()
        return len(waiting)

    def drain_chunks(self, job_id: str) -> list[object]:
        job = self.get(job_id)
        chunks, job.chunks = job.chunks, []
        return chunks

    def counts(self) -> dict[JobState, int]:
        """Jobs by state: the live ones now, the ended ones since the start."""
        live = Counter(job.state for job in self._jobs.values() if job.live)
        return {state: live[state] + self.ended[state] for state in JobState}

    def health(self) -> JsonObject:
        counts = self.counts()
        return {
            "jobs": {
                "completed": counts[JobState.COMPLETED],
                "failed": counts[JobState.FAILED] + counts[JobState.TIMED_OUT],
                "inProgress": counts[JobState.IN_PROGRESS],
                "inQueue": counts[JobState.IN_QUEUE],
                "retried": self.retried,
            },
            "workers": self.workers.health(),
        }

    # What workers do.

    def take(self, worker_id: str, count: int, now_s: float) -> list[Job]:
        """Up to `count` waiting jobs, now running on the worker."""
        worker = self._asking(worker_id, now_s)
        taken: list[Job] = []
        while len(taken) < count and worker is not None and worker.state is WorkerState.READY:
            job = self._backlog.take(lambda job: self._may_take(worker_id, job))
            if job is None:
                break
            if self._ends_before_start(job, now_s):
                continue
            job.worker_id, job.started_s, job.ended_s = worker_id, now_s, None
            job.state, job.result, job.fault_due = JobState.IN_PROGRESS, {}, not job.sync
            worker.jobs[job.id] = None
            self._schedule(now_s + FAULT_AFTER_S, job)
            self._schedule(now_s + job.submission.policy.execution_timeout_s, job)
            taken.append(job)
        return taken

    def give_back(self, jobs: list[Job]) -> None:
        """Undoes a take whose answer could not be delivered."""
        for job in reversed(jobs):
            if job.state is JobState.IN_PROGRESS:
                self._detach(job)
                self._enqueue(job, front=True)

    def finish(self, worker_id: str, job_id: str, posted: JsonObject, now_s: float) -> bool:
        """Ends a job as its worker says; False if the worker does not hold it (any more).

        Only a string `error` makes a failure: any other kind is dropped, and the job completes without it.
        """
        worker = self.workers.find(worker_id)
        job = self._jobs.get(job_id)
        if posted.get("stopPod") and worker is not None:
            self._effects.append(RestartRequested(worker_id))
        if worker is None or job is None or job_id not in worker.jobs:
            return False
        error = posted.get("error")
        failed = isinstance(error, str) and error != ""
        result: JsonObject = {"error": error} if failed else {}
        if "output" in posted and not self._befalls(job, "drop_output"):
            result["output"] = posted["output"]
        self._end(job, JobState.FAILED if failed else JobState.COMPLETED, result, now_s)
        return True

    def report_progress(
        self, worker_id: str, job_id: str, progress: object, *, overwrite_ended: bool
    ) -> bool:
        """Shows progress as the output of a running job; False if it is ignored.

        Progress is posted by a thread of its own and can overtake the end. With `overwrite_ended` such a late one
        turns the completed job back into a running one that nobody runs, which the real platform was seen doing.
        """
        job = self._jobs.get(job_id)
        if job is None or job.worker_id != worker_id:
            return False
        if job.state is JobState.COMPLETED and overwrite_ended:
            self.ended[JobState.COMPLETED] -= 1
            job.state = JobState.IN_PROGRESS
        if job.state is not JobState.IN_PROGRESS:
            return False
        job.result = {"output": progress}
        return True

    def add_chunk(self, worker_id: str, job_id: str, chunk: object) -> bool:
        worker = self.workers.find(worker_id)
        job = self._jobs.get(job_id)
        if worker is None or job is None or job_id not in worker.jobs:
            return False
        job.chunks.append(chunk)
        self._effects.append(ChunkAdded(job_id))
        return True

    def ping(self, worker_id: str, now_s: float, *, in_hand: bool = True) -> None:
        """The worker's ping process lives; `in_hand` says whether the worker itself knows of jobs that it runs."""
        worker = self.workers.find(worker_id)
        if worker is None:
            return
        if not all(self._jobs[job_id].sync for job_id in worker.jobs) and self._fires("lose_ping"):
            return
        worker.last_ping_s = now_s
        if worker.state is WorkerState.UNHEALTHY and not in_hand:
            worker.state = WorkerState.DRAINING
            self._effects.append(LostWorkerIdle(worker_id))

    def collect_stops(self, worker_id: str) -> list[str]:
        """Ids of jobs the worker must stop, each told once."""
        worker = self.workers.find(worker_id)
        if worker is None:
            return []
        stops, worker.stops = worker.stops, []
        return stops

    # What the platform does.

    def drain_worker(self, worker_id: str) -> None:
        """From now on the worker gets no more jobs."""
        worker = self.workers.find(worker_id)
        if worker is not None:
            worker.state = WorkerState.DRAINING

    def remove_worker(self, worker_id: str, now_s: float) -> None:
        """The worker's process is gone, and its jobs are lost."""
        worker = self.workers.find(worker_id)
        if worker is not None:
            self._lose_jobs(worker, now_s)
            self.workers.remove(worker_id)

    def advance(self, now_s: float) -> None:
        """Applies everything that is due."""
        while self._agenda and self._agenda[0][0] <= now_s:
            job = self._jobs.get(heapq.heappop(self._agenda)[2])
            if job is not None:
                self._look_at(job, now_s)
        for worker in self.workers.silent(now_s, self._limits.ping_grace_s):
            worker.state = WorkerState.UNHEALTHY
            self._lose_jobs(worker, now_s)
            self._effects.append(WorkerLost(worker.id))

    def drain_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    # Steps.

    def _asking(self, worker_id: str, now_s: float) -> Worker | None:
        worker = self.workers.find(worker_id)
        if worker is not None and worker.state is WorkerState.INITIALIZING:
            worker.state = WorkerState.READY
            # Silence counts from here on, even if no ping ever comes.
            worker.last_ping_s = now_s
        return worker

    def _enqueue(self, job: Job, *, front: bool = False) -> None:
        job.state, job.worker_id, job.started_s, job.result, job.chunks = (
            JobState.IN_QUEUE,
            None,
            None,
            {},
            [],
        )
        self._backlog.add(job, front=front)
        self._effects.append(JobsWaiting())

    def overrun_running(self, now_s: float) -> int:
        """Stops what runs, as if it had used up its executionTimeout; the number of jobs."""
        running = [job for job in self._jobs.values() if job.state is JobState.IN_PROGRESS and not job.sync]
        for job in running:
            self._overrun(job, now_s)
        return len(running)

    def has_waiting(self) -> bool:
        """Whether a take may find a job."""
        return bool(self._backlog)

    def _may_take(self, worker_id: str, job: Job) -> bool:
        """A job that still runs on a worker goes to another one, where there is any."""
        return job.runs_on != worker_id or not self.workers.another_ready(worker_id)

    def _look_at(self, job: Job, now_s: float) -> None:
        policy = job.submission.policy
        if not job.live:
            keep_s = self._limits.keep_sync_s if job.sync else self._limits.keep_s
            if job.ended_s is not None and now_s >= job.ended_s + keep_s:
                self._forget(job)
        elif now_s >= job.submitted_s + policy.ttl_s:
            self._stop_run(job)
            self._forget(job)
        elif job.started_s is not None and now_s >= job.started_s + policy.execution_timeout_s:
            self._overrun(job, now_s)
        elif job.fault_due and job.started_s is not None and now_s >= job.started_s + FAULT_AFTER_S:
            job.fault_due = False
            self._befall_running(job, now_s)

    def _overrun(self, job: Job, now_s: float) -> None:
        self._stop_run(job)
        state = JobState.TIMED_OUT if self._fires("overrun_times_out") else JobState.FAILED
        self._end(job, state, {"error": OVERRUN_ERROR}, now_s)

    def _befalls(self, job: Job, fault: str) -> bool:
        return not job.sync and self._fires(fault)

    def _ends_before_start(self, job: Job, now_s: float) -> bool:
        """Whether a job is over instead of reaching a worker.

        A job whose input is `{}` never does: the platform drops the empty input, and the job fails.
        """
        if not job.submission.input or self._befalls(job, "fail_unstarted_job"):
            job.requeues = self._limits.max_requeues
            self._end(job, JobState.FAILED, {"error": LOST_WORKER_ERROR}, now_s)
        elif self._befalls(job, "complete_unstarted_job"):
            self._end(job, JobState.COMPLETED, {}, now_s)
        elif self._befalls(job, "forget_queued_job"):
            self._forget(job)
        else:
            return False
        return True

    def _befall_running(self, job: Job, now_s: float) -> None:
        if self._fires("cancel_running_job"):
            self.cancel(job.id, now_s)
        elif self._fires("overrun_running_job"):
            self._overrun(job, now_s)
        elif self._fires("forget_running_job"):
            self._forget(job)
        elif job.requeues < self._limits.max_requeues and self._fires("requeue_running_job"):
            runs_on = job.worker_id
            self._queue_again(job)
            job.runs_on = runs_on

    def _queue_again(self, job: Job) -> None:
        job.requeues += 1
        self._detach(job)
        self._enqueue(job, front=True)

    def _lose_jobs(self, worker: Worker, now_s: float) -> None:
        for job in reversed([self._jobs[job_id] for job_id in worker.jobs]):
            if job.requeues >= self._limits.max_requeues:
                self._end(job, JobState.FAILED, {"error": LOST_WORKER_ERROR}, now_s)
                continue
            self._queue_again(job)

    def _end(self, job: Job, state: JobState, result: JsonObject, now_s: float) -> None:
        self._detach(job)
        job.state, job.result, job.ended_s = state, result, now_s
        self.ended[state] += 1
        self._schedule(now_s + (self._limits.keep_sync_s if job.sync else self._limits.keep_s), job)
        self._effects.append(JobEnded(job))

    def _forget(self, job: Job) -> None:
        self._detach(job)
        del self._jobs[job.id]
        self._effects.append(JobGone(job.id))

    def _stop_run(self, job: Job) -> None:
        worker = self.workers.find(job.worker_id)
        if worker is not None and job.id in worker.jobs:
            worker.stops.append(job.id)
            self._effects.append(StopRequested(worker.id))

    def _detach(self, job: Job) -> None:
        worker = self.workers.find(job.worker_id)
        if worker is not None:
            worker.jobs.pop(job.id, None)

    def _schedule(self, due_s: float, job: Job) -> None:
        self._agenda_entries += 1
        heapq.heappush(self._agenda, (due_s, self._agenda_entries, job.id))
