"""The batches port in memory, and the four ports together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from shared.adapters.redis_shards import Timing
from shared.core.lifecycle import BatchPhase, ShardState
from shared.core.sharding import PartPlan
from shared.core.shards import BatchRecord, ShardRecord
from shared.ports.monitor import Breaker
from shared.ports.state import Committed, Deletion, Endpoint, Lease, NewBatch, ShardRef, Stopped, Swept, Work
from tests.memory_records import MemoryBatch, MemoryShard
from tests.memory_shards import MemoryQueue, MemoryRepairs, MemoryRuns
from tests.memory_state import DAY_MS, MemoryState
from tests.memory_uploads import MemoryUploads

PER_SWEEP = 8
HINTS_PER_SWEEP = 16
NOTE_MS = 3_600_000
LOOK_AGAIN_MS = 15_000
AT_RUNPOD = (ShardState.CLAIMED, ShardState.SUBMITTED)


class MemoryBatches:
    def __init__(self, state: MemoryState, endpoints: Sequence[Endpoint], tick_ms: int) -> None:
        self._state = state
        self._endpoints = endpoints
        self._tick_ms = tick_ms
        self._ticked_until_ms = 0
        self._hints: list[str] = []
        # What a drain leaves is kept for a day; what was never drained, until it is.
        self._hints_until_ms: int | None = None

    def push(self, bodies: Sequence[str]) -> None:
        """As RunPod does."""
        if self._hints_until_ms is not None and self._state.clock() >= self._hints_until_ms:
            self._hints, self._hints_until_ms = [], None
        self._hints += bodies

    async def find_key(self, idempotency_key: str, body_hash: str) -> Committed | None:
        made = self._state.keys.get(idempotency_key)
        if made is None:
            return None
        return Committed("existing" if made[1] == body_hash else "mismatch", made[0])

    async def find_retry(self, batch_id: str) -> str | None:
        return next((b.new.id for b in self._state.batches.values() if b.new.retry_of == batch_id), None)

    async def commit(self, batch: NewBatch) -> Committed:
        state = self._state
        if batch.idempotency_key:
            known = await self.find_key(batch.idempotency_key, batch.body_hash or "")
            if known:
                return known
        upload = state.uploads.get(batch.upload) if batch.upload else None
        if upload and upload.made:
            made_id, made_by = upload.made
            return Committed("existing" if made_by == batch.body_hash else "mismatch", made_id)
        if batch.id in state.batches:
            return Committed("created", batch.id, state.batches[batch.id].member)
        state.arrivals += 1
        now_ms = state.clock()
        made = MemoryBatch(batch, state.arrivals, now_ms, now_ms, _shards(batch), batch.next_shard)
        state.batches[batch.id] = made
        state.open[batch.id], state.listed[batch.id] = made.expires_ms, now_ms
        for model in batch.requests_by_model:
            state.queues[model][made.member] = state.vtimes[model]
        if batch.idempotency_key:
            state.keys[batch.idempotency_key] = (batch.id, batch.body_hash, made.keep_until_ms)
        if upload:
            upload.made, upload.until_ms = (batch.id, batch.body_hash or ""), made.keep_until_ms
        return Committed("created", batch.id, made.member)

    async def sweep(self, batch_id: str | None, *, force: bool = False) -> Swept:
        batch = self._state.find(batch_id) if batch_id else None
        now_ms = self._state.clock()
        is_throttled = now_ms < self._ticked_until_ms
        if not is_throttled:
            self._ticked_until_ms = now_ms + self._tick_ms
        work = None if is_throttled and not force else self._work(now_ms)
        return Swept(batch.record() if batch else None, work)

    def _work(self, now_ms: int) -> Work:
        self.push([])
        hints, self._hints = self._hints[:HINTS_PER_SWEEP], self._hints[HINTS_PER_SWEEP:]
        if hints:
            self._hints_until_ms = now_ms + DAY_MS if self._hints else None
        leases: list[Lease] = []
        for endpoint in self._endpoints:
            at = self._state.endpoints[endpoint.id]
            for kept in (at.waiting, at.running):
                due = sorted(
                    (due, f"{ref.batch}:{ref.shard}", ref) for ref, due in kept.items() if due <= now_ms
                )
                leases += [Lease(endpoint.id, ref) for *_, ref in due[:PER_SWEEP]]
        expired = sorted((due, id_) for id_, due in self._state.open.items() if due <= now_ms)
        models = {endpoint.model for endpoint in self._endpoints if self._feeds(endpoint, now_ms)}
        return Work(
            hints, leases, [id_ for _, id_ in expired[:PER_SWEEP]], sorted(models), list(self._endpoints)
        )

    def _feeds(self, endpoint: Endpoint, now_ms: int) -> bool:
        state = self._state
        delayed = state.delayed[endpoint.model].values()
        has_work = bool(state.queues[endpoint.model]) or any(due <= now_ms for due in delayed)
        return has_work and not state.endpoints[endpoint.id].rest_cause

    async def stop(self, batch_id: str, reason: Literal["canceled", "expired"]) -> Stopped:
        state, now_ms = self._state, self._state.clock()
        batch = state.find(batch_id)
        if batch is None:
            state.open.pop(batch_id, None)
            return Stopped("gone", [])
        if batch.phase is BatchPhase.ENDED:
            return Stopped("ended", [])
        if reason == "expired" and now_ms < batch.expires_ms:
            return Stopped("early", [])
        if not batch.stop:
            batch.stop, batch.stop_ms = reason, now_ms
        jobs = self._settle_what_waits(batch)
        for model in batch.new.requests_by_model:
            state.queues[model].pop(batch.member, None)
            state.delayed[model].pop(batch.member, None)
        if not state.end_if_complete(batch) and now_ms >= batch.expires_ms:
            state.open[batch_id] = now_ms + LOOK_AGAIN_MS
        return Stopped("stopped", jobs)

    def _settle_what_waits(self, batch: MemoryBatch) -> list[tuple[str, str]]:
        """All that is not running: the jobs that may be queued for it."""
        jobs: list[tuple[str, str]] = []
        retried = {number for retries in batch.retries.values() for number, _ in retries}
        for shard in batch.shards.values():
            if shard.state in AT_RUNPOD:
                if shard.job:
                    jobs.append((shard.endpoint, shard.job))
                self._state.drop_lease(shard.endpoint, ShardRef(batch.new.id, shard.number))
            elif shard.handed_out and shard.number not in retried:
                continue
            self._state.settle_whole(batch, shard, batch.stop)
        batch.retries.clear()
        return jobs

    async def delete(self, batch_id: str, step: Literal["mark", "finish"]) -> Deletion:
        state = self._state
        batch = state.batches.get(batch_id)
        if batch is None:
            return Deletion("done" if batch_id in state.notes else "gone")
        if batch.phase is not BatchPhase.ENDED:
            return Deletion("open")
        if step == "finish":
            del state.batches[batch_id]
            state.listed.pop(batch_id, None)
            state.notes[batch_id] = state.clock() + NOTE_MS
            return Deletion("done")
        batch.deleted = True
        return Deletion("marked", batch.new.nonce)

    async def part_totals(self, batch_id: str) -> list[int]:
        batch = self._state.batches.get(batch_id)
        return [part.requests for part in batch.new.parts] if batch else []

    async def part(self, batch_id: str, part: int) -> PartPlan | None:
        batch = self._state.batches.get(batch_id)
        return batch.new.parts[part] if batch and part < len(batch.new.parts) else None

    async def listing(self, limit: int, after: str | None) -> tuple[list[BatchRecord], str | None]:
        """Deleted batches leave their place on a page empty."""
        newest = sorted(((at, id_) for id_, at in self._state.listed.items()), reverse=True)
        if after:
            at_ms, _, last = after.partition(":")
            newest = [item for item in newest if item < (int(at_ms), last)]
        page = newest[:limit]
        found = [batch for _, id_ in page if (batch := self._state.find(id_))]
        token = f"{page[-1][0]}:{page[-1][1]}" if len(newest) > limit else None
        return [batch.record() for batch in found], token

    async def shards(self, batch_id: str, numbers: Sequence[int]) -> dict[int, ShardRecord]:
        found = {number: self._state.find_shard(ShardRef(batch_id, number)) for number in numbers}
        return {number: shard.record() for number, shard in found.items() if shard}


def _shards(batch: NewBatch) -> dict[int, MemoryShard]:
    shards: dict[int, MemoryShard] = {}
    for share in (share for part in batch.parts for share in part.models):
        sizes = [size for size, times in share.sizes for _ in range(times)]
        for number, size in zip(share.numbers, sizes, strict=True):
            shards[number] = MemoryShard(number, share.model, size)
    return shards


class MemoryStore:
    """All ports over one state. Call `forget` whenever the clock was advanced."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        timing: Timing,
        tick_ms: int,
        clock: Callable[[], int],
        jitter: Callable[[], float],
    ) -> None:
        self.state = MemoryState(timing, clock, jitter)
        self.batches = MemoryBatches(self.state, endpoints, tick_ms)
        self.uploads = MemoryUploads(self.state)
        self.queue = MemoryQueue(self.state)
        self.runs = MemoryRuns(self.state)
        self.repairs = MemoryRepairs(self.state)
        self._endpoints = endpoints

    async def breakers(self) -> Mapping[str, Breaker]:
        now_ms = self.state.clock()
        return {
            endpoint.id: self.state.endpoints[endpoint.id].breaker(now_ms) for endpoint in self._endpoints
        }
