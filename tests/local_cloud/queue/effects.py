"""What the outside must do after the queue's state changed; the core returns these and does none of it."""

from dataclasses import dataclass

from tests.local_cloud.queue.job import Job


@dataclass(frozen=True, slots=True)
class JobsWaiting:
    """Jobs can be taken: wake the workers that wait for one."""


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job reached its end: wake its callers, call its webhook."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobGone:
    """A job was deleted: its callers now get 404."""

    job_id: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A worker must stop some of its jobs: answer its stop channel."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class ChunkAdded:
    """A running job has new stream chunks."""

    job_id: str


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """A worker's reply said `stopPod`: replace the worker."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker fell silent: put another one in its place. It may be heard of again."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class LostWorkerIdle:
    """A worker that was lost and replaced is heard of, and has nothing in hand any more: end it."""

    worker_id: str


WorkerEffect = RestartRequested | WorkerLost | LostWorkerIdle
Effect = JobsWaiting | JobEnded | JobGone | StopRequested | ChunkAdded | WorkerEffect
