"""The queue, runs and repairs ports in memory."""

import math
from collections.abc import Sequence
from typing import Literal

from shared.adapters.redis_shards import CAPACITY_TTL_MS, CLAIMS_PER_CALL, REST_CAP_MS
from shared.core.lifecycle import BatchPhase, ShardState
from shared.core.shards import ShardRecord
from shared.ports.state import (
    BeatVerdict,
    Claim,
    Claimed,
    Endpoint,
    Inspected,
    Lease,
    Outcome,
    Progress,
    RequeueVerdict,
    ShardRef,
    Started,
    Submitted,
)
from tests.memory_records import MemoryBatch, MemoryEndpoint, MemoryShard
from tests.memory_state import DAY_MS, MemoryState

NEWCOMER_SHARE = 0.1
HEADS = 8
DELAYED_PER_CLAIM = 16
RETRY_AFTER_CAP_MS = 600_000
DIED_AGAIN = "Its worker died each time it ran this request"
OVER = (ShardState.QUEUED, ShardState.SETTLED, ShardState.SPLIT)


class MemoryQueue:
    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def claim(self, endpoint: Endpoint, window: int, heads: Sequence[str]) -> Claimed:
        state, now_ms = self._state, self._state.clock()
        at = state.endpoints[endpoint.id]
        if at.resting_ms(now_ms) > 0:
            return Claimed([], [], 0)
        room, most = max(window, at.capacity) - len(at.waiting), CLAIMS_PER_CALL
        if at.refusals:
            most = 1
        if not at.is_trusted(now_ms):
            room = min(room, 1 - len(at.waiting) - len(at.running))
        self._bring_back(endpoint.model)
        queue, claims = state.queues[endpoint.model], list[Claim]()
        while room > 0 and len(claims) < most and queue:
            [member, *_] = self._order(endpoint.model)
            if member not in heads:
                break
            claim = self._hand_out(member, endpoint)
            if claim:
                claims.append(claim)
                room -= 1
        if claims and at.refusals:
            at.rest("probe", state.timing.claim_ms, now_ms)
        return Claimed(claims, self._order(endpoint.model)[:HEADS], room)

    def _order(self, model: str) -> list[str]:
        queue = self._state.queues[model]
        return sorted(queue, key=lambda member: (queue[member], member))

    def _bring_back(self, model: str) -> None:
        """Batches whose retries are due."""
        delayed = self._state.delayed[model]
        due = sorted((due, member) for member, due in delayed.items() if due <= self._state.clock())
        for _, member in due[:DELAYED_PER_CLAIM]:
            del delayed[member]
            self._state.queues[model].setdefault(member, self._state.vtimes[model])

    def _hand_out(self, member: str, endpoint: Endpoint) -> Claim | None:
        """The next shard of the batch; a batch that has none now leaves the queue."""
        state, model, now_ms = self._state, endpoint.model, self._state.clock()
        queue = state.queues[model]
        batch = state.find(member.partition(":")[2])
        if batch is None or batch.stop or now_ms >= batch.expires_ms:
            del queue[member]
            return None
        shard = self._next_shard(batch, model, state.endpoints[endpoint.id])
        if shard is None:
            del queue[member]
            dues = [due for _, due in batch.retries[model]]
            if dues:
                state.delayed[model][member] = min(*dues, state.delayed[model].get(member, dues[0]))
            return None
        shard.handed_out, shard.state, shard.attempt = True, ShardState.CLAIMED, shard.attempt + 1
        shard.endpoint, shard.since_ms, shard.job = endpoint.id, now_ms, ""
        shard.alone = shard.must_run_alone
        ref = ShardRef(batch.new.id, shard.number)
        state.endpoints[endpoint.id].waiting[ref] = now_ms + state.timing.claim_ms
        start = queue[member]
        queue[member] = batch.finishes[model] = start + shard.requests / batch.new.weight
        state.vtimes[model] = max(state.vtimes[model] + NEWCOMER_SHARE * shard.requests, start)
        is_trusted = state.endpoints[endpoint.id].is_trusted(now_ms)
        canary = shard.alone and shard.requests == 1 and (not is_trusted or shard.deaths > 0)
        return Claim(ref, shard.attempt, shard.requests, batch.expires_ms - now_ms, shard.alone, canary)

    def _next_shard(self, batch: MemoryBatch, model: str, at: MemoryEndpoint) -> MemoryShard | None:
        """Retries first, but last where workers die: there they may be the cause."""
        due = [entry for entry in batch.retries[model] if entry[1] <= self._state.clock()]
        fresh = [shard for shard in batch.shards.values() if shard.model == model and not shard.handed_out]
        if fresh and (not due or not at.is_trusted(self._state.clock())):
            return fresh[0]
        if not due:
            return None
        batch.retries[model].remove(due[0])
        return batch.shards[due[0][0]]

    async def record(
        self, endpoint: Endpoint, submitted: Sequence[Submitted], *, healthy: bool = True
    ) -> None:
        state, now_ms = self._state, self._state.clock()
        at = state.endpoints[endpoint.id]
        if healthy:
            at.refusals = 0
            if at.rest_cause == "probe":
                at.rest_cause = ""
        for item in submitted:
            batch, shard = state.find(item.ref.batch), state.find_shard(item.ref)
            if batch and shard and shard.state is ShardState.CLAIMED and shard.attempt == item.attempt:
                shard.state, shard.job, shard.since_ms = ShardState.SUBMITTED, item.job, now_ms
                at.waiting[item.ref] = now_ms + state.timing.lease_ms
                batch.advance(BatchPhase.SUBMITTED, now_ms)

    async def rest(self, endpoint: Endpoint, retry_after_s: float | None) -> float:
        at, now_ms = self._state.endpoints[endpoint.id], self._state.clock()
        at.refusals += 1
        doubled_ms = min(REST_CAP_MS, 1000 << (at.refusals - 1)) * (0.5 + self._state.jitter() / 2)
        rest_ms = math.ceil(max(min(1000 * (retry_after_s or 0), RETRY_AFTER_CAP_MS), doubled_ms))
        at.refusals_until_ms = now_ms + rest_ms + 10 * REST_CAP_MS
        if at.rest_cause == "probe" or at.resting_ms(now_ms) < rest_ms:
            at.rest("refused", rest_ms, now_ms)
        return rest_ms / 1000

    async def publish_capacity(self, endpoint: Endpoint, concurrency: int) -> None:
        at = self._state.endpoints[endpoint.id]
        at.capacity, at.capacity_until_ms = concurrency, self._state.clock() + CAPACITY_TTL_MS


class MemoryRuns:
    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def start(
        self,
        ref: ShardRef,
        attempt: int,
        job: str,
        worker: str,
        endpoint: Endpoint,
        *,
        proven: bool = False,
    ) -> Started:
        state, now_ms = self._state, self._state.clock()
        batch, shard = state.find(ref.batch), state.find_shard(ref)
        if batch is None:
            return Started("gone")
        if shard is None or shard.attempt != attempt or shard.state in OVER:
            done = shard and shard.attempt == attempt and shard.state is ShardState.SETTLED
            return Started("settled" if done else "stale")
        if proven:
            state.endpoints[endpoint.id].prove(now_ms + DAY_MS)
        is_running = shard.state is ShardState.RUNNING
        if is_running and shard.job != job and now_ms - shard.beat_ms < state.timing.stale_ms:
            return Started("busy")
        loss = state.bury(batch, shard, endpoint.id) if is_running else "queued"
        if batch.stop or loss == "errored":
            return Started(_lose(state, batch, shard, endpoint.id, DIED_AGAIN))
        if loss == "split" or (shard.must_run_alone and not shard.alone):
            state.put_back(batch, shard, loss, endpoint.id, delay_ms=0)
            return Started("stale")
        batch.set_live(shard, (0, 0), now_ms)
        shard.state, shard.job, shard.worker = ShardState.RUNNING, job, worker
        shard.epoch, shard.beat_ms, shard.since_ms = shard.epoch + 1, now_ms, now_ms
        state.drop_lease(endpoint.id, ref)
        state.endpoints[endpoint.id].running[ref] = now_ms + state.timing.lease_ms
        batch.advance(BatchPhase.PROCESSING, now_ms)
        root = shard.number if shard.root is None else shard.root
        keep_ms = batch.keep_until_ms - now_ms
        return Started(
            "run", shard.epoch, batch.new.nonce, shard.requests, batch.member, root, shard.offset, keep_ms
        )

    async def beat(self, endpoint: Endpoint, items: Sequence[Progress]) -> list[BeatVerdict]:
        return [self._beat(endpoint, item) for item in items]

    def _beat(self, endpoint: Endpoint, item: Progress) -> BeatVerdict:
        state, now_ms = self._state, self._state.clock()
        batch, shard = state.find(item.ref.batch), state.find_shard(item.ref)
        if not batch or not shard or (shard.state, shard.epoch) != (ShardState.RUNNING, item.epoch):
            return "lost"
        batch.set_live(shard, (item.succeeded, item.errored), now_ms)
        shard.beat_ms = now_ms
        state.endpoints[endpoint.id].running[item.ref] = now_ms + state.timing.lease_ms
        return batch.stop or ("expired" if now_ms >= batch.expires_ms else "ok")

    async def settle(
        self, ref: ShardRef, epoch: int, endpoint: Endpoint, output_key: str, outcome: Outcome, inline: str
    ) -> bool:
        state, now_ms = self._state, self._state.clock()
        batch, shard = state.find(ref.batch), state.find_shard(ref)
        if not batch or not shard or shard.epoch != epoch:
            return False
        if shard.state is not ShardState.RUNNING:
            return shard.result is not None
        batch.set_live(shard, (0, 0), now_ms)
        shard.state, shard.job, shard.worker, shard.result = ShardState.SETTLED, "", "", outcome
        state.drop_lease(endpoint.id, ref)
        if outcome.succeeded + outcome.errored > outcome.refused:
            state.endpoints[endpoint.id].prove(now_ms + DAY_MS)
        state.end_if_complete(batch)
        return True


class MemoryRepairs:
    def __init__(self, state: MemoryState) -> None:
        self._state = state

    async def inspect(self, lease: Lease) -> Inspected:
        batch, shard = self._state.find(lease.ref.batch), self._state.find_shard(lease.ref)
        if not batch or not shard:
            self._state.drop_lease(lease.endpoint, lease.ref)
            return Inspected(None, "", self._state.clock())
        return Inspected(shard.record(), batch.new.nonce, self._state.clock())

    async def renew(self, lease: Lease, after_ms: int) -> None:
        at = self._state.endpoints[lease.endpoint]
        for leases in (at.waiting, at.running):
            if lease.ref in leases:
                leases[lease.ref] = self._state.clock() + after_ms

    async def drop(self, lease: Lease) -> None:
        shard = self._state.find_shard(lease.ref)
        if shard is None or shard.state in OVER:
            self._state.drop_lease(lease.endpoint, lease.ref)

    async def requeue(
        self, ref: ShardRef, seen: ShardRecord, *, delay_ms: int, blame: bool, message: str
    ) -> RequeueVerdict:
        state = self._state
        batch, shard = state.find(ref.batch), state.find_shard(ref)
        if batch is None:
            return "gone"
        if shard is None or shard.state in OVER or not _is_as_seen(shard, seen):
            return "changed"
        loss = state.bury(batch, shard, seen.endpoint) if blame else "queued"
        if batch.stop or loss == "errored":
            return _lose(state, batch, shard, seen.endpoint, message)
        state.put_back(batch, shard, loss, seen.endpoint, delay_ms)
        return loss


def _is_as_seen(shard: MemoryShard, seen: ShardRecord) -> bool:
    """An epoch below 0 and no beat at all stand for any."""
    return (
        (shard.state, shard.attempt) == (seen.state, seen.attempt)
        and (seen.epoch < 0 or shard.epoch == seen.epoch)
        and seen.beat_ms in (0, shard.beat_ms)
    )


def _lose(
    state: MemoryState, batch: MemoryBatch, shard: MemoryShard, endpoint: str, message: str
) -> Literal["canceled", "expired", "errored"]:
    """Settles a shard that will not run again: its batch was stopped, or it died once too often."""
    state.drop_lease(endpoint, ShardRef(batch.new.id, shard.number))
    outcome = batch.stop or "errored"
    state.settle_whole(batch, shard, outcome, "" if batch.stop else message)
    state.end_if_complete(batch)
    return outcome
