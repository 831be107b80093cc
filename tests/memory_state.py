"""The state in memory, as plainly as it can be said: what the scripts must do, and nothing of how they do it.

The ports over it are in `memory_batches.py` and `memory_shards.py`. `tests/properties/test_state_machine.py` compares
them with the real ones, step by step.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Literal

from shared.adapters.redis_shards import Timing
from shared.core.lifecycle import BatchPhase, ShardState
from shared.ports.state import ShardRef
from tests.memory_records import MemoryBatch, MemoryEndpoint, MemoryShard, MemoryUpload

DAY_MS = 86_400_000
LONGEST_DEATH_REST_MS = 600_000

Loss = Literal["queued", "split", "errored"]


class MemoryState:
    """All that the ports share, and what follows from a loss. `clock` gives milliseconds; `jitter` 0..1."""

    def __init__(self, timing: Timing, clock: Callable[[], int], jitter: Callable[[], float]) -> None:
        self.timing = timing
        self.clock = clock
        self.jitter = jitter
        self.arrivals = 0
        self.batches: dict[str, MemoryBatch] = {}
        self.listed: dict[str, int] = {}
        self.open: dict[str, int] = {}
        self.keys: dict[str, tuple[str, str | None, int]] = {}
        self.notes: dict[str, int] = {}
        self.uploads: dict[str, MemoryUpload] = {}
        self.endpoints: dict[str, MemoryEndpoint] = defaultdict(MemoryEndpoint)
        self.queues: dict[str, dict[str, float]] = defaultdict(dict)
        self.delayed: dict[str, dict[str, int]] = defaultdict(dict)
        self.vtimes: dict[str, float] = defaultdict(float)

    def forget(self) -> None:
        """Whatever is kept until now is gone."""
        now_ms = self.clock()
        self.batches = {id_: batch for id_, batch in self.batches.items() if now_ms < batch.keep_until_ms}
        self.keys = {key: made for key, made in self.keys.items() if now_ms < made[2]}
        self.notes = {id_: until for id_, until in self.notes.items() if now_ms < until}
        self.uploads = {key: upload for key, upload in self.uploads.items() if now_ms < upload.until_ms}
        for endpoint in self.endpoints.values():
            endpoint.forget(now_ms)

    def find(self, batch_id: str) -> MemoryBatch | None:
        batch = self.batches.get(batch_id)
        return None if batch is None or batch.deleted else batch

    def find_shard(self, ref: ShardRef) -> MemoryShard | None:
        batch = self.batches.get(ref.batch)
        shard = batch.shards.get(ref.shard) if batch else None
        return shard if shard and shard.handed_out else None

    def drop_lease(self, endpoint: str, ref: ShardRef) -> None:
        self.endpoints[endpoint].waiting.pop(ref, None)
        self.endpoints[endpoint].running.pop(ref, None)

    def settle_whole(self, batch: MemoryBatch, shard: MemoryShard, outcome: str, error: str = "") -> None:
        """Without an output: every request of the shard ends the same way."""
        batch.set_live(shard, (0, 0), self.clock())
        shard.state, shard.outcome, shard.error = ShardState.SETTLED, outcome, error

    def end_if_complete(self, batch: MemoryBatch) -> bool:
        batch.updated_ms = self.clock()
        if sum(batch.settled().values()) == batch.new.total:
            batch.phase, batch.ended_ms = BatchPhase.ENDED, self.clock()
            self.open.pop(batch.new.id, None)
        return batch.phase is BatchPhase.ENDED

    def bury(self, batch: MemoryBatch, shard: MemoryShard, endpoint_id: str) -> Loss:
        """What the death of the shard's worker leads to."""
        batch.deaths += 1
        shard.losses += 1
        endpoint = self.endpoints[endpoint_id]
        if shard.state is not ShardState.RUNNING:
            # All jobs that ended unstarted count as one death: nobody knows of which process.
            self._works("unstarted", endpoint, shard.losses)
            return "queued"
        works = self._works(shard.worker or shard.job, endpoint)
        if not shard.alone:
            shard.suspicions += 1
            return "queued"
        if shard.requests > 1:
            return "split"
        # The last word on a request is said only where an endpoint is known to work.
        if not works:
            return "queued"
        shard.deaths += 1
        return "errored" if shard.deaths >= self.timing.max_deaths else "queued"

    def _works(self, process: str, endpoint: MemoryEndpoint, nth: int = 0) -> bool:
        """Whether an endpoint settles shards; one that does not rests, longer with each process that dies."""
        now_ms = self.clock()
        is_new = process not in endpoint.dead
        endpoint.dead.add(process)
        endpoint.dead_until_ms = now_ms + DAY_MS
        if endpoint.is_trusted(now_ms):
            return True
        if is_new or nth:
            longest_ms = min(LONGEST_DEATH_REST_MS, 1000 * 2 ** ((nth or len(endpoint.dead)) - 1))
            rest_ms = math.ceil(longest_ms * (0.5 + self.jitter() / 2))
            if endpoint.resting_ms(now_ms) < rest_ms:
                endpoint.rest("deaths", rest_ms, now_ms)
        return False

    def put_back(
        self, batch: MemoryBatch, shard: MemoryShard, loss: Loss, endpoint: str, delay_ms: int
    ) -> None:
        """To the end of the retry list: the shard, or its two halves."""
        self.drop_lease(endpoint, ShardRef(batch.new.id, shard.number))
        batch.set_live(shard, (0, 0), self.clock())
        numbers = [shard.number]
        if loss == "split":
            numbers = self._split(batch, shard)
        shard.state, shard.job, shard.worker = ShardState(loss), "", ""
        due_ms = self.clock() + delay_ms
        batch.retries[shard.model] += [(number, due_ms) for number in numbers]
        if delay_ms:
            delayed = self.delayed[shard.model]
            delayed[batch.member] = min(due_ms, delayed.get(batch.member, due_ms))
        else:
            start = max(self.vtimes[shard.model], batch.finishes[shard.model])
            self.queues[shard.model].setdefault(batch.member, start)

    def _split(self, batch: MemoryBatch, shard: MemoryShard) -> list[int]:
        root = shard.number if shard.root is None else shard.root
        half, first = shard.requests // 2, batch.next_shard
        batch.next_shard += 2
        for number, requests, offset in (
            (first, half, shard.offset),
            (first + 1, shard.requests - half, shard.offset + half),
        ):
            batch.shards[number] = MemoryShard(
                number, shard.model, requests, root, offset, handed_out=True, suspicions=shard.suspicions
            )
        shard.halves = (first, first + 1)
        return [first, first + 1]
