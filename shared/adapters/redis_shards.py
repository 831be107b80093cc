"""The queue, runs and repairs ports over Redis: everything that moves one shard."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from shared.adapters import keys
from shared.adapters.upstash import Upstash
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

CLAIMS_PER_CALL = 8
CAPACITY_TTL_MS = 7 * 24 * 3600 * 1000
REST_CAP_MS = 60_000


@dataclass(frozen=True)
class Timing:
    """Milliseconds. `lease_ms` is when a submitted or running shard is looked at again, `stale_ms` when a beat is
    too old to protect its worker, `claim_ms` how long a submission may take, `max_deaths` how often a request may die
    alone."""

    claim_ms: int = 30_000
    lease_ms: int = 15_000
    stale_ms: int = 30_000
    max_deaths: int = 2


def _loss_keys(ref: ShardRef, endpoint: str, model: str) -> list[str]:
    """What `start` and `requeue` declare."""
    return [
        *_pairs([ref]),
        keys.waiting(endpoint),
        keys.running(endpoint),
        keys.queue(model),
        keys.delayed(model),
        keys.vtime(model),
        keys.OPEN,
        keys.METRICS_BATCHES,
        keys.metrics(model),
        keys.rest(endpoint),
        keys.deaths(endpoint),
        keys.proof(endpoint),
    ]


def _pairs(refs: Sequence[ShardRef]) -> list[str]:
    return [key for ref in refs for key in (keys.batch(ref.batch), keys.shards(ref.batch))]


class RedisQueue:
    def __init__(self, redis: Upstash, timing: Timing) -> None:
        self._redis = redis
        self._timing = timing

    async def claim(self, endpoint: Endpoint, window: int, heads: Sequence[str]) -> Claimed:
        declared = [
            keys.queue(endpoint.model),
            keys.delayed(endpoint.model),
            keys.vtime(endpoint.model),
            keys.waiting(endpoint.id),
            keys.running(endpoint.id),
            keys.rest(endpoint.id),
            keys.failures(endpoint.id),
            keys.deaths(endpoint.id),
            keys.proof(endpoint.id),
            keys.capacity(endpoint.id),
            keys.claim_nonce(secrets.token_hex(8)),
            *(key(head.partition(":")[2]) for head in heads for key in (keys.batch, keys.shards, keys.plan)),
        ]
        args = {
            "endpoint": endpoint.id,
            "model": endpoint.model,
            "max": CLAIMS_PER_CALL,
            "window": window,
            "claim_ms": self._timing.claim_ms,
            "members": list(heads),
        }
        answer = await self._redis.run("claim", declared, args)
        claims = [
            Claim(
                ref=ShardRef(item["batch"], int(item["shard"])),
                attempt=int(item["attempt"]),
                requests=int(item["requests"]),
                left_ms=int(item["expires_at"] - item["now"]),
                alone=bool(item["alone"]),
                canary=bool(item["canary"]),
            )
            for item in answer["claims"] or []
        ]
        return Claimed(claims, answer["heads"] or [], int(answer["room"]))

    async def record(
        self, endpoint: Endpoint, submitted: Sequence[Submitted], *, healthy: bool = True
    ) -> None:
        items = [
            {"batch": item.ref.batch, "shard": item.ref.shard, "attempt": item.attempt, "job": item.job}
            for item in submitted
        ]
        declared = [keys.waiting(endpoint.id), keys.failures(endpoint.id), keys.rest(endpoint.id)]
        declared += _pairs([item.ref for item in submitted])
        args = {"items": items, "lease_ms": self._timing.lease_ms, "healthy": healthy}
        await self._redis.run("record", declared, args)

    async def rest(self, endpoint: Endpoint, retry_after_s: float | None) -> float:
        args = {
            "retry_after_ms": int(1000 * (retry_after_s or 0)),
            "random": random.random(),  # noqa: S311  spreads callers, guards nothing
            "cap_ms": REST_CAP_MS,
        }
        declared = [keys.rest(endpoint.id), keys.failures(endpoint.id)]
        return float(await self._redis.run("rest", declared, args)) / 1000

    async def publish_capacity(self, endpoint: Endpoint, concurrency: int) -> None:
        await self._redis.execute("SET", keys.capacity(endpoint.id), concurrency, "PX", CAPACITY_TTL_MS)


class RedisRuns:
    def __init__(self, redis: Upstash, timing: Timing) -> None:
        self._redis = redis
        self._timing = timing

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
        args = {
            "id": ref.batch,
            "shard": ref.shard,
            "model": endpoint.model,
            "attempt": attempt,
            "job": job,
            "worker": worker,
            "call": secrets.token_hex(8),
            "lease_ms": self._timing.lease_ms,
            "stale_ms": self._timing.stale_ms,
            "delay_ms": 0,
            "max_deaths": self._timing.max_deaths,
            "random": random.random(),  # noqa: S311  spreads callers, guards nothing
            "message": "Its worker died each time it ran this request",
            "proven": proven,
        }
        answer = await self._redis.run("start", _loss_keys(ref, endpoint.id, endpoint.model), args)
        return Started(**answer)

    async def beat(self, endpoint: Endpoint, items: Sequence[Progress]) -> list[BeatVerdict]:
        args = {
            "items": [
                {
                    "batch": item.ref.batch,
                    "shard": item.ref.shard,
                    "epoch": item.epoch,
                    "succeeded": item.succeeded,
                    "errored": item.errored,
                }
                for item in items
            ],
            "lease_ms": self._timing.lease_ms,
        }
        declared = [keys.running(endpoint.id), *_pairs([item.ref for item in items])]
        answer: list[BeatVerdict] = await self._redis.run("beat", declared, args)
        return answer

    async def settle(
        self, ref: ShardRef, epoch: int, endpoint: Endpoint, output_key: str, outcome: Outcome, inline: str
    ) -> bool:
        declared = [
            *_pairs([ref]),
            keys.running(endpoint.id),
            keys.OPEN,
            keys.METRICS_BATCHES,
            keys.metrics(endpoint.model),
            output_key,
            keys.rest(endpoint.id),
            keys.deaths(endpoint.id),
            keys.proof(endpoint.id),
        ]
        numbers = asdict(outcome)
        counts = {name: numbers.pop(name) for name in ("succeeded", "errored", "canceled", "expired")}
        args = {"id": ref.batch, "shard": ref.shard, "epoch": epoch, "counts": counts, **numbers}
        answer = await self._redis.run("settle", declared, args, bulk=inline)
        return bool(answer["verdict"] == "settled")


class RedisRepairs:
    def __init__(self, redis: Upstash, timing: Timing) -> None:
        self._redis = redis
        self._timing = timing

    async def inspect(self, lease: Lease) -> Inspected:
        declared = [*_pairs([lease.ref]), keys.waiting(lease.endpoint), keys.running(lease.endpoint)]
        args = {"id": lease.ref.batch, "shard": lease.ref.shard}
        answer = await self._redis.run("inspect", declared, args)
        if not answer["shard"]:
            return Inspected(None, "", int(answer["now"]))
        record = ShardRecord.parse(lease.ref.shard, answer["shard"])
        return Inspected(record, answer["nonce"], int(answer["now"]))

    async def renew(self, lease: Lease, after_ms: int) -> None:
        await self._renew(lease, {"after_ms": after_ms, "drop": False})

    async def drop(self, lease: Lease) -> None:
        await self._renew(lease, {"after_ms": 0, "drop": True})

    async def _renew(self, lease: Lease, how: dict[str, int | bool]) -> None:
        ref = lease.ref
        declared = [keys.waiting(lease.endpoint), keys.running(lease.endpoint), keys.shards(ref.batch)]
        args = {"lease": keys.lease(ref.batch, ref.shard), "shard": ref.shard, **how}
        await self._redis.run("renew", declared, args)

    async def requeue(
        self, ref: ShardRef, seen: ShardRecord, *, delay_ms: int, blame: bool, message: str
    ) -> RequeueVerdict:
        args = {
            "id": ref.batch,
            "shard": ref.shard,
            "model": seen.model,
            "state": seen.state.value,
            "attempt": seen.attempt,
            "epoch": seen.epoch,
            "beat": seen.beat_ms if seen.beat_ms else -1,
            "delay_ms": delay_ms,
            "blame": blame,
            "max_deaths": self._timing.max_deaths,
            "random": random.random(),  # noqa: S311  spreads callers, guards nothing
            "message": message,
        }
        declared = _loss_keys(ref, seen.endpoint, seen.model)
        verdict: RequeueVerdict = (await self._redis.run("requeue", declared, args))["verdict"]
        return verdict
