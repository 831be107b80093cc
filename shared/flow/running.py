"""The shards that one process runs right now: their beats, their progress, and their share of the engine's time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from shared.errors import PlatformError
from shared.ports.state import BeatVerdict, Endpoint, Progress, Runs, ShardRef

log = logging.getLogger(__name__)


@dataclass(eq=False)
class RunningShard:
    """A shard in this process. `verdict` turns from "ok" once, when the store says that it must stop; `leaving` when
    this worker ends first."""

    ref: ShardRef
    epoch: int
    succeeded: int = 0
    errored: int = 0
    busy_s: float = 0.0
    verdict: BeatVerdict = "ok"
    leaving: bool = False
    tasks: list[asyncio.Task[dict[str, Any]]] = field(default_factory=list)

    def stop(self, verdict: BeatVerdict) -> None:
        if self.verdict == "ok":
            self.verdict = verdict
            self.cancel_tasks()

    def leave(self) -> None:
        self.leaving = True
        self.cancel_tasks()

    def cancel_tasks(self) -> None:
        for task in self.tasks:
            task.cancel()

    @property
    def progress(self) -> Progress:
        return Progress(self.ref, self.epoch, self.succeeded, self.errored)


class RunningShards:
    """One beat for all shards of the process every `beat_s` while there are any; beside each, a `tick`, which may take
    longer than the time between two beats and must not delay them. A last tick follows the last shard: what that left,
    such as the end of its batch, is not left to the next caller."""

    def __init__(
        self, runs: Runs, endpoint: Endpoint, tick: Callable[[], Awaitable[Any]], beat_s: float
    ) -> None:
        self._runs = runs
        self._endpoint = endpoint
        self._tick = tick
        self._beat_s = beat_s
        self._shards: set[RunningShard] = set()
        self._leaving = False
        self._clock_s = monotonic()
        self._beating: asyncio.Task[None] | None = None
        self._ticking: asyncio.Future[Any] | None = None

    def add(self, shard: RunningShard) -> None:
        self._share_time()
        self._shards.add(shard)
        if self._leaving:
            shard.leave()
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._beat_while_running())

    def remove(self, shard: RunningShard) -> None:
        self._share_time()
        self._shards.discard(shard)

    def leave(self) -> None:
        """This process ends: what runs stops, and so does what is added from now on."""
        self._leaving = True
        for shard in self._shards:
            shard.leave()

    @property
    def leaving(self) -> bool:
        return self._leaving

    def _share_time(self) -> None:
        """Shards share one engine, so the time since the last change is split evenly between those that ran."""
        now_s = monotonic()
        for shard in self._shards:
            shard.busy_s += (now_s - self._clock_s) / len(self._shards)
        self._clock_s = now_s

    async def _beat_while_running(self) -> None:
        while True:
            await asyncio.sleep(self._beat_s)
            is_last = not self._shards
            if not is_last:
                await self.beat()
            if self._ticking is None or self._ticking.done():
                self._ticking = asyncio.ensure_future(self._tick())
            if is_last:
                return

    async def beat(self) -> None:
        """Renew all leases, report progress, learn which shards to stop. A lost beat is made good by the next."""
        shards = list(self._shards)
        try:
            verdicts = await self._runs.beat(self._endpoint, [shard.progress for shard in shards])
        except PlatformError as error:
            log.warning("beat lost: %s", error)
            return
        for shard, verdict in zip(shards, verdicts, strict=True):
            if verdict != "ok":
                shard.stop(verdict)
