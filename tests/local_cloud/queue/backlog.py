"""The jobs that wait, in the order they are taken: low priority last, a job that was given back first."""

from collections import deque
from collections.abc import Callable

from tests.local_cloud.queue.job import Job, JobState


class Backlog:
    """An entry may be outdated (its job was cancelled, or forgotten): taking it decides. `find` looks a job up."""

    def __init__(self, find: Callable[[str], Job | None]) -> None:
        self._find = find
        self._waiting: deque[str] = deque()
        self._waiting_low: deque[str] = deque()

    def __bool__(self) -> bool:
        """Whether there may be a job."""
        return bool(self._waiting or self._waiting_low)

    def add(self, job: Job, *, front: bool = False) -> None:
        waiting = self._waiting_low if job.submission.policy.low_priority else self._waiting
        if front:
            waiting.appendleft(job.id)
        else:
            waiting.append(job.id)

    def take(self, wanted: Callable[[Job], bool]) -> Job | None:
        """Removes the first job that is wanted; the others keep their places."""
        for waiting in (self._waiting, self._waiting_low):
            passed_over: list[str] = []
            found: Job | None = None
            while waiting and found is None:
                job = self._find(waiting.popleft())
                if job is not None and job.state is JobState.IN_QUEUE:
                    if wanted(job):
                        found = job
                    else:
                        passed_over.append(job.id)
            waiting.extendleft(reversed(passed_over))
            if found is not None:
                return found
        return None

    def clear(self) -> None:
        self._waiting.clear()
        self._waiting_low.clear()
