"""How a worker ends: what it waits for, what it gives back, and its exit code."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from handlers.drain import Drain


class Worker:
    """Stands for the SDK and its jobs. `exit_code_of` runs a loop until the drain ends it."""

    def __init__(self, grace_s: float, jobs: int = 0) -> None:
        self.jobs = jobs
        self.told: list[str] = []
        self.alive = True
        self.feeding: list[str] = []
        self.drain = Drain(grace_s, self._give_back, lambda: self.alive, lambda: self.feeding, self._listed)
        for job in self._listed():
            self.drain.handle(job)
        signal.signal(signal.SIGTERM, lambda number, frame: self.told.append("stop taking jobs"))

    def _listed(self) -> set[str]:
        return {f"job-{number}" for number in range(self.jobs)}

    def _give_back(self) -> None:
        self.told.append(f"give back {self.jobs}")
        self.jobs = 0

    def exit_code_of(self, then: Callable[[], None]) -> int:
        async def main() -> None:
            self.drain.arm()
            self.drain.arm()
            then()
            await asyncio.Event().wait()

        with pytest.raises(SystemExit) as ended:
            asyncio.run(asyncio.wait_for(main(), 30))
        assert isinstance(ended.value.code, int)
        return ended.value.code


@pytest.fixture(autouse=True)
def _same_signal_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_an_idle_worker_that_is_asked_to_end_ends_at_once() -> None:
    worker = Worker(grace_s=60)
    assert worker.exit_code_of(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    assert worker.told == ["stop taking jobs", "give back 0"]
    assert worker.drain.begun


def test_jobs_in_hand_may_finish_within_the_grace() -> None:
    worker = Worker(grace_s=60, jobs=1)

    def finish_later() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.5, lambda: setattr(worker, "jobs", 0))

    assert worker.exit_code_of(finish_later) == 0
    assert worker.told == ["stop taking jobs", "give back 0"]


def test_what_still_runs_after_the_grace_is_given_back() -> None:
    worker = Worker(grace_s=0.1, jobs=2)
    assert worker.exit_code_of(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    assert worker.told == ["stop taking jobs", "give back 2"]


def test_the_submission_of_what_was_given_back_is_not_cut_off() -> None:
    worker = Worker(grace_s=60)
    worker.feeding = ["a round"]

    def fed() -> None:
        worker.told.append("fed")
        worker.feeding.clear()

    def end_while_feeding() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        asyncio.get_running_loop().call_later(0.5, fed)

    assert worker.exit_code_of(end_while_feeding) == 0
    assert worker.told[-1] == "fed"


def test_nobody_waits_for_a_job_that_never_reached_its_handler() -> None:
    worker = Worker(grace_s=60)

    def take_too_late() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        worker.jobs = 1

    assert worker.exit_code_of(take_too_late) == 0
    assert worker.told == ["stop taking jobs", "give back 1"]


def test_a_worker_without_an_engine_waits_for_nothing_and_ends_as_failed() -> None:
    worker = Worker(grace_s=60, jobs=1)
    assert worker.exit_code_of(lambda: worker.drain.begin(failed=True)) == 1
    assert worker.told == ["stop taking jobs", "give back 1"]


def test_a_worker_that_can_do_nothing_any_more_leaves_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.drain.ALIVE_S", 0.01)
    worker = Worker(grace_s=60)
    assert worker.exit_code_of(lambda: setattr(worker, "alive", False)) == 1
    assert worker.told == ["stop taking jobs", "give back 0"]


def test_asked_twice_is_asked_once() -> None:
    worker = Worker(grace_s=0.1, jobs=1)

    def twice() -> None:
        worker.drain.begin()
        worker.drain.begin(failed=True)

    assert worker.exit_code_of(twice) == 0
    assert worker.told == ["stop taking jobs", "give back 1"]
