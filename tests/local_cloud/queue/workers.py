"""The queue's view of its workers: which exist, when each was last heard of, what each runs and must stop."""

from dataclasses import dataclass, field
from enum import StrEnum

from tests.local_cloud.queue.job import JsonObject


class WorkerState(StrEnum):
    INITIALIZING = "initializing"
    READY = "ready"
    DRAINING = "draining"
    # Lost for good: it fell silent. Should it be heard of again, it gets no more jobs.
    UNHEALTHY = "unhealthy"


@dataclass(slots=True)
class Worker:
    id: str
    state: WorkerState = WorkerState.INITIALIZING
    last_ping_s: float | None = None
    # Ids of running jobs, in the order they were taken.
    jobs: dict[str, None] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)


class WorkerTable:
    """Workers by id. A worker is ready once it has asked for a job for the first time."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._workers

    def expect(self, worker_id: str) -> None:
        self._workers[worker_id] = Worker(worker_id)

    def find(self, worker_id: str | None) -> Worker | None:
        return None if worker_id is None else self._workers.get(worker_id)

    def remove(self, worker_id: str) -> Worker | None:
        return self._workers.pop(worker_id, None)

    def all(self) -> list[Worker]:
        return list(self._workers.values())

    def silent(self, now_s: float, grace_s: float) -> list[Worker]:
        """Workers that pinged before, but not within the grace."""
        return [
            worker
            for worker in self._workers.values()
            if worker.last_ping_s is not None
            and now_s - worker.last_ping_s > grace_s
            and worker.state is not WorkerState.UNHEALTHY
        ]

    def another_ready(self, worker_id: str) -> bool:
        return any(
            worker.state is WorkerState.READY and worker.id != worker_id for worker in self._workers.values()
        )

    def health(self) -> JsonObject:
        counts = {"idle": 0, "initializing": 0, "ready": 0, "running": 0, "throttled": 0, "unhealthy": 0}
        for worker in self._workers.values():
            if worker.state in (WorkerState.INITIALIZING, WorkerState.UNHEALTHY):
                counts[worker.state.value] += 1
                continue
            counts["ready"] += worker.state is WorkerState.READY
            counts["running" if worker.jobs else "idle"] += 1
        return dict(counts)
