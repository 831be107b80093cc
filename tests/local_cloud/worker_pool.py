"""The worker processes of one endpoint: unmodified SDK workers in production mode, restarted when they die.

A worker that falls silent is replaced and left alone, as on a machine that cannot be reached: it may come back.
"""

import asyncio
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.local_cloud.failure import failure_of
from tests.local_cloud.guard import Guard, kill_group
from tests.local_cloud.queue.live import LiveEndpoint

_CRASH_WINDOW_S = 30.0
_FREE_RESTARTS = 3
_LONGEST_DELAY_S = 5.0


def restart_delay_s(recent_deaths: int) -> float:
    """The pause before a restart after that many deaths within half a minute: none at first, then doubling."""
    extra = recent_deaths - _FREE_RESTARTS
    return 0.0 if extra <= 0 else min(0.25 * 2 ** (extra - 1), _LONGEST_DELAY_S)


class _Slot:
    """The place of one worker: the process in it changes when it dies."""

    def __init__(self, log_path: Path) -> None:
        self.log_path = log_path
        self.worker_id = ""
        self.process: asyncio.subprocess.Process | None = None
        self.wanted = True
        self.exit_code: int | None = None
        self.keeper: asyncio.Task[None] | None = None


class WorkerPool:
    """`worker_env(worker_id)` is a worker's whole environment."""

    def __init__(
        self,
        endpoint: LiveEndpoint,
        command: Sequence[str],
        worker_env: Callable[[str], Mapping[str, str]],
        *,
        folder: Path,
        log_dir: Path,
        guard: Guard,
        drain_s: float,
    ) -> None:
        self._endpoint = endpoint
        self._command = command
        self._worker_env = worker_env
        self._folder = folder
        self._log_dir = log_dir
        self._guard = guard
        self._drain_s = drain_s
        self._slots: list[_Slot] = []
        # Workers that fell silent and were replaced, while their processes are there.
        self._lost: list[_Slot] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._slots_made = 0

    def scale(self, count: int) -> None:
        """Starts or drains workers until there are `count`; returns before they are up or gone.

        Those with the fewest jobs go first.
        """
        while len(self._slots) < count:
            self._add_slot()
        by_load = sorted(self._slots, key=lambda slot: len(self._jobs_of(slot.worker_id)))
        for slot in by_load[: len(self._slots) - count]:
            slot.wanted = False
            self._slots.remove(slot)
            self._start_drain(slot)

    def replace(self, worker_id: str) -> None:
        """Drains a worker and starts another in its place."""
        for slot in self._slots:
            if slot.worker_id == worker_id:
                self._start_drain(slot)

    def refill(self, worker_id: str) -> None:
        """Starts another worker in the place of one that is lost."""
        for slot in [slot for slot in self._slots if slot.worker_id == worker_id]:
            slot.wanted = False
            self._slots.remove(slot)
            self._lost.append(slot)
            self._add_slot()

    def dismiss(self, worker_id: str) -> None:
        """Ends a worker that was replaced."""
        for slot in self._lost:
            if slot.worker_id == worker_id:
                self._start_drain(slot)

    def signal(self, worker_id: str, number: signal.Signals) -> bool:
        """Signals a worker's process; False where there is none. STOP and CONT are for all of its processes: what
        freezes a container freezes its pings too."""
        for slot in (*self._slots, *self._lost):
            if slot.worker_id == worker_id and slot.process is not None:
                send = os.killpg if number in (signal.SIGSTOP, signal.SIGCONT) else os.kill
                with suppress(ProcessLookupError):
                    send(slot.process.pid, number)
                    return True
        return False

    async def wait_ready(self, timeout_s: float) -> None:
        """Waits until each worker has asked for a job; raises StartFailure for one that ends or takes too long."""
        for slot in list(self._slots):
            if await self._endpoint.wait_ready(slot.worker_id, timeout_s):
                continue
            part = f"worker of {self._endpoint.name} ({self._command[-1]})"
            ended = slot.exit_code is not None
            reason = f"ended with code {slot.exit_code}" if ended else f"asked for no job in {timeout_s:g} s"
            raise failure_of(part, reason, slot.log_path)

    def describe(self) -> list[dict[str, object]]:
        """`[{worker_id, pid, jobs, state}]` of the workers that run; a lost one that was replaced is "unhealthy"."""
        described: list[dict[str, object]] = []
        for slot in (*self._slots, *self._lost):
            worker = self._endpoint.core.workers.find(slot.worker_id)
            if worker is not None and slot.process is not None:
                described.append(
                    {
                        "worker_id": worker.id,
                        "pid": slot.process.pid,
                        "jobs": list(worker.jobs),
                        "state": worker.state.value,
                    }
                )
        return described

    async def stop(self) -> None:
        """Kills all workers at once."""
        keepers = [slot.keeper for slot in (*self._slots, *self._lost) if slot.keeper is not None]
        for task in [*keepers, *self._leaving]:
            task.cancel()
        await asyncio.gather(*keepers, *self._leaving, return_exceptions=True)
        self._slots.clear()
        self._lost.clear()

    async def _keep(self, slot: _Slot) -> None:
        deaths: deque[float] = deque(maxlen=64)
        while True:
            await self._run_worker(slot)
            if not slot.wanted:
                if slot in self._lost:
                    self._lost.remove(slot)
                return
            now_s = time.monotonic()
            deaths.append(now_s)
            await asyncio.sleep(restart_delay_s(sum(now_s - death_s < _CRASH_WINDOW_S for death_s in deaths)))
            self._expect_worker(slot)

    async def _run_worker(self, slot: _Slot) -> None:
        with slot.log_path.open("ab") as log:
            log.write(f"=== worker {slot.worker_id}\n".encode())
            log.flush()
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._worker_env(slot.worker_id),
                cwd=self._folder,
                # A group of its own, so that the SDK's ping process can be killed with its worker.
                start_new_session=True,
            )
        slot.process = process
        self._guard.add(process.pid)
        try:
            slot.exit_code = await process.wait()
        finally:
            kill_group(process.pid)
            await process.wait()
            self._guard.drop(process.pid)
            slot.process = None
            self._endpoint.remove_worker(slot.worker_id)

    def _start_drain(self, slot: _Slot) -> None:
        task = asyncio.create_task(self._drain(slot))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _drain(self, slot: _Slot) -> None:
        """Asks a worker to finish its jobs and leave, as the platform does when it scales down."""
        process, keeper = slot.process, slot.keeper
        if process is not None:
            process.send_signal(signal.SIGTERM)
            self._endpoint.drain_worker(slot.worker_id)
            try:
                await asyncio.wait_for(process.wait(), self._drain_s)
            except TimeoutError:
                kill_group(process.pid)
            except asyncio.CancelledError:
                kill_group(process.pid)
                raise
        if keeper is not None and not slot.wanted:
            if process is None:
                # It waits to restart a worker: nothing to be patient for.
                keeper.cancel()
                self._endpoint.remove_worker(slot.worker_id)
            await asyncio.gather(keeper, return_exceptions=True)

    def _add_slot(self) -> None:
        self._slots_made += 1
        slot = _Slot(self._log_dir / f"{self._endpoint.name}-{self._slots_made}.log")
        self._slots.append(slot)
        self._expect_worker(slot)
        slot.keeper = asyncio.create_task(self._keep(slot))

    def _expect_worker(self, slot: _Slot) -> None:
        slot.worker_id = f"{self._endpoint.name}-{uuid.uuid4().hex[:16]}"
        slot.exit_code = None
        self._endpoint.core.workers.expect(slot.worker_id)

    def _jobs_of(self, worker_id: str) -> dict[str, None]:
        worker = self._endpoint.core.workers.find(worker_id)
        return {} if worker is None else worker.jobs
