"""How a worker ends: asked to (SIGTERM), or because its engine died.

The SDK stops taking jobs and lets those in hand run, however long that takes, and then waits for its long polls. A
platform that asked is not that patient: after the grace whatever runs is given back, and the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from time import monotonic

from runpod.serverless.modules.worker_state import JobsProgress

log = logging.getLogger(__name__)

# What was given back has this long to reach Redis, and its job RunPod.
GIVE_BACK_S = 5.0
LOOK_S = 0.05
ALIVE_S = 1.0
HAND_OVER_S = 0.3
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Drain:
    """`give_back` stops what still runs when `grace_s` is over. `alive` tells whether the worker can do anything at
    all; one that can't leaves by itself. `under_way` is what must not be cut off beside jobs, such as the submission of
    what was given back. `listed` are the jobs that the SDK still has: a result is posted after its handler returned."""

    def __init__(
        self,
        grace_s: float,
        give_back: Callable[[], None],
        alive: Callable[[], bool] = lambda: True,
        under_way: Callable[[], Sequence[object]] = tuple,
        listed: Callable[[], set[str]] = lambda: set((JobsProgress().get_job_list() or "").split(",")),
    ) -> None:
        self._grace_s = grace_s
        self._give_back = give_back
        self._alive = alive
        self._under_way = under_way
        self._listed = listed
        self._handled: set[str] = set()
        self._stop_taking: Callable[[], None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        return self._leaving is not None

    def handle(self, job_id: str) -> None:
        """A job of that id has reached its handler. One that a long poll brings while the SDK ends never does; the
        platform delivers it elsewhere, and nobody waits for it here."""
        self._handled.add(job_id)

    def _jobs_left(self) -> int:
        self._handled &= self._listed()
        return len(self._handled)

    def arm(self) -> None:
        """Stand before the SDK's signal handlers. Call inside the event loop, as often as you like."""
        if self._stop_taking is not None:
            return
        of_sdk = signal.getsignal(signal.SIGTERM)
        self._stop_taking = lambda: of_sdk(signal.SIGTERM, None) if callable(of_sdk) else None
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.begin)
        self._watch = loop.create_task(self._leave_when_dead())

    def begin(self, *, failed: bool = False) -> None:
        """Leave: exit code 0, or 1 and without a grace where the worker can do nothing any more."""
        if self._leaving is not None or self._stop_taking is None:
            return
        self._stop_taking()
        grace_s = 0.0 if failed else self._grace_s
        log.info("leaving: %d jobs in hand, %g s to finish them", self._jobs_left(), grace_s)
        self._leaving = asyncio.get_running_loop().create_task(self._leave(grace_s, 1 if failed else 0))

    async def _leave_when_dead(self) -> None:
        """An engine may die between two jobs; the next one would find out, and fail."""
        while self._alive():  # noqa: ASYNC110 - no engine tells when it dies
            await asyncio.sleep(ALIVE_S)
        self.begin(failed=True)

    async def _leave(self, grace_s: float, exit_code: int) -> None:
        # What the SDK had taken already reaches its handler within this time.
        await asyncio.sleep(HAND_OVER_S)
        await self._wait_while(self._jobs_left, grace_s)
        self._give_back()
        await self._wait_while(lambda: self._jobs_left() or self._under_way(), GIVE_BACK_S)
        # From a callback it ends the loop, and with it the SDK's long polls.
        asyncio.get_running_loop().call_soon(sys.exit, exit_code)

    async def _wait_while(self, busy: Callable[[], object], timeout_s: float) -> None:
        end_s = monotonic() + timeout_s
        while busy() and monotonic() < end_s:  # noqa: ASYNC110 - the SDK counts, and tells nobody
            await asyncio.sleep(LOOK_S)
