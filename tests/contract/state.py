"""The state's adapters on one local Redis, and the few steps that most tests of it are made of."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from shared.adapters import keys
from shared.adapters.redis_batches import RedisBatches
from shared.adapters.redis_shards import RedisQueue, RedisRepairs, RedisRuns, Timing
from shared.adapters.redis_uploads import RedisUploads
from shared.adapters.upstash import Upstash
from shared.core.lifecycle import ShardState
from shared.core.sharding import SHARDS_PER_PART, ModelPlan, PartPlan, run_lengths
from shared.core.shards import BatchRecord, ShardRecord
from shared.core.views import status_view
from shared.ports.payloads import output_key
from shared.ports.state import (
    BeatVerdict,
    Claim,
    Endpoint,
    Lease,
    NewBatch,
    Outcome,
    Progress,
    RequeueVerdict,
    ShardRef,
    Started,
    Submitted,
)
from tests.memory_uploads import UPLOAD_MAX_BYTES, UPLOAD_MAX_REQUESTS, UPLOAD_MS

MISTRAL = Endpoint(id="mistral-ep", url="http://runpod.invalid/v2/mistral-ep", model="mistral")
LLAMA = Endpoint(id="llama-ep", url="http://runpod.invalid/v2/llama-ep", model="llama-70b")
ENDPOINTS = (MISTRAL, LLAMA)
TIMING = Timing()
HOUR_MS = 3_600_000
WIDE_WINDOW = 1000


def new_id() -> str:
    return f"batch_{secrets.token_hex(12)}"


def part_plan(models: Mapping[str, Sequence[int]], part: int = 0) -> PartPlan:
    """A part of `{model: [requests of each shard]}`."""
    plans: list[ModelPlan] = []
    first = part * SHARDS_PER_PART
    for model, sizes in models.items():
        plans.append(ModelPlan(model, first, len(sizes), sum(sizes), run_lengths(sizes)))
        first += len(sizes)
    return PartPlan(sum(plan.requests for plan in plans), plans)


def new_batch(*parts: Mapping[str, Sequence[int]] | None, **changes: Any) -> NewBatch:
    """A batch of parts of `{model: [requests of each shard]}`; one Mistral shard of four where none is given."""
    plans = [part_plan(models or {"mistral": [4]}, number) for number, models in enumerate(parts or [None])]
    fields: dict[str, Any] = {
        "id": new_id(),
        "stage": "email",
        "priority": "normal",
        "weight": 1.0,
        "nonce": secrets.token_hex(12),
        "parts": plans,
        "expires_in_ms": 24 * HOUR_MS,
        "retain_ms": 24 * HOUR_MS,
    }
    return NewBatch(**{**fields, **changes})


def outcome(succeeded: int = 0, **others: int) -> Outcome:
    """An outcome; whatever is not given is 0."""
    empty = dict.fromkeys(("errored", "canceled", "expired", "input_tokens", "output_tokens", "gpu_ms"), 0)
    return Outcome(succeeded=succeeded, **{**empty, **others})


def job_of(claim: Claim) -> str:
    return f"job-{claim.ref.shard}-{claim.attempt}"


class Store:
    """The ports over Redis. Its steps default to the Mistral endpoint."""

    def __init__(self, redis: Upstash, tick_ms: int = 1) -> None:
        self.redis = redis
        self.batches = RedisBatches(redis, ENDPOINTS, tick_ms)
        self.uploads = RedisUploads(redis, UPLOAD_MAX_REQUESTS, UPLOAD_MAX_BYTES, UPLOAD_MS)
        self.queue = RedisQueue(redis, TIMING)
        self.runs = RedisRuns(redis, TIMING)
        self.repairs = RedisRepairs(redis, TIMING)

    async def create(self, *parts: Mapping[str, Sequence[int]] | None, **changes: Any) -> NewBatch:
        batch = new_batch(*parts, **changes)
        assert (await self.batches.commit(batch)).verdict == "created"
        return batch

    async def claim(
        self, limit: int = 8, endpoint: Endpoint = MISTRAL, window: int = WIDE_WINDOW
    ) -> list[Claim]:
        """At most `limit` shards, as a feeder would claim them."""
        claims: list[Claim] = []
        heads: Sequence[str] = ()
        while len(claims) < limit:
            waiting = int(await self.redis.execute("ZCARD", keys.waiting(endpoint.id)))
            answer = await self.queue.claim(endpoint, min(window, waiting + limit - len(claims)), heads)
            claims += answer.claims
            heads = answer.heads
            if not heads:
                break
            if answer.room <= 0 and not answer.claims:
                break
        return claims

    async def submit(self, limit: int = 8, endpoint: Endpoint = MISTRAL) -> list[Claim]:
        claims = await self.claim(limit, endpoint)
        submitted = [Submitted(claim.ref, claim.attempt, job_of(claim)) for claim in claims]
        await self.queue.record(endpoint, submitted)
        return claims

    async def start(
        self,
        claim: Claim,
        job: str | None = None,
        worker: str = "w1",
        endpoint: Endpoint = MISTRAL,
        *,
        proven: bool = False,
    ) -> Started:
        return await self.runs.start(
            claim.ref, claim.attempt, job or job_of(claim), worker, endpoint, proven=proven
        )

    async def run(
        self, limit: int = 8, endpoint: Endpoint = MISTRAL, worker: str = "w1", *, answers: bool = False
    ) -> list[Claim]:
        """Claimed, submitted and started; `answers` says whether an engine answers the canary that a claim asks for."""
        claims = await self.submit(limit, endpoint)
        for claim in claims:
            proven = answers and claim.canary
            started = await self.start(claim, worker=worker, endpoint=endpoint, proven=proven)
            assert started.verdict == "run"
        return claims

    async def prove(self) -> None:
        """The endpoint settles a shard of a batch of its own, so that deaths can be the fault of shards from now on.
        Nothing else may wait."""
        await self.create({"mistral": [1]})
        [claim] = await self.run()
        assert await self.settle(claim.ref, 1, outcome(1))

    async def die(self, worker: str | None = None, *, answers: bool = False) -> tuple[Claim, RequeueVerdict]:
        """The next shard starts in a process of its own, which dies of it."""
        [claim] = await self.run(1, worker=worker or f"w-{secrets.token_hex(4)}", answers=answers)
        return claim, await self.requeue(claim.ref, blame=True)

    async def split(self, models: Mapping[str, Sequence[int]] | None = None) -> ShardRef:
        """The first shard of a new batch at an endpoint that works, after the three deaths that split it."""
        await self.prove()
        batch = await self.create(models)
        verdicts = [(await self.die())[1] for _ in range(3)]
        assert verdicts == ["queued", "queued", "split"]
        return ShardRef(batch.id, 0)

    async def beat(
        self, ref: ShardRef, epoch: int, succeeded: int = 0, errored: int = 0, endpoint: Endpoint = MISTRAL
    ) -> BeatVerdict:
        [verdict] = await self.runs.beat(endpoint, [Progress(ref, epoch, succeeded, errored)])
        return verdict

    async def settle(
        self, ref: ShardRef, epoch: int, result: Outcome, inline: str = "output", endpoint: Endpoint = MISTRAL
    ) -> bool:
        key = output_key("test", ref.shard, epoch)
        return await self.runs.settle(ref, epoch, endpoint, key, result, inline)

    async def requeue(
        self, ref: ShardRef, *, delay_ms: int = 0, blame: bool = False, message: str = "lost"
    ) -> RequeueVerdict:
        """A requeue by somebody who has just looked."""
        seen = await self.shard(ref)
        assert seen is not None
        return await self.repairs.requeue(ref, seen, delay_ms=delay_ms, blame=blame, message=message)

    async def shard(self, ref: ShardRef) -> ShardRecord | None:
        return (await self.batches.shards(ref.batch, [ref.shard])).get(ref.shard)

    async def state(self, ref: ShardRef) -> ShardState:
        shard = await self.shard(ref)
        assert shard is not None
        return shard.state

    async def batch(self, batch_id: str) -> BatchRecord:
        record = (await self.batches.sweep(batch_id)).batch
        assert record is not None
        return record

    async def counts(self, batch_id: str) -> dict[str, int]:
        """The counts that a caller sees, after checking that they add up to the total."""
        counts: dict[str, int] = status_view(await self.batch(batch_id))["counts"]
        parts = [number for name, number in counts.items() if name != "total"]
        assert min(parts) >= 0
        assert sum(parts) == counts["total"]
        return counts

    async def leases(self, endpoint: Endpoint = MISTRAL) -> tuple[set[str], set[str]]:
        """The members of the endpoint's waiting and running leases."""
        waiting = await self.redis.execute("ZRANGE", keys.waiting(endpoint.id), 0, -1)
        running = await self.redis.execute("ZRANGE", keys.running(endpoint.id), 0, -1)
        return set(waiting), set(running)

    async def ttls_ms(self) -> dict[str, int]:
        """Every key of the database with its remaining time (-1: for ever)."""
        names: list[str] = sorted(await self.redis.execute("KEYS", "*"))
        times = await self.redis.pipeline([["PTTL", name] for name in names])
        gone = -2  # expired since
        return {name: time for name, time in zip(names, times, strict=True) if time != gone}

    async def dump(self) -> dict[str, Any]:
        """Everything stored but the throttle of the sweep."""
        names = [name for name in await self.ttls_ms() if name != keys.TICK]
        values = await self.redis.pipeline([["DUMP", name] for name in names])
        return dict(zip(names, values, strict=True))


def lease(ref: ShardRef, endpoint: Endpoint = MISTRAL) -> Lease:
    return Lease(endpoint.id, ref)
