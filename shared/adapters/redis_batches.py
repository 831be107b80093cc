"""The batches port over Redis: commit, sweep, stop, delete, listing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal
from urllib.parse import urlsplit

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from shared.core.sharding import PartPlan
from shared.core.shards import BatchRecord, ShardRecord
from shared.errors import InvalidRequest
from shared.ports.state import (
    Committed,
    Deletion,
    Endpoint,
    Lease,
    NewBatch,
    ShardRef,
    Stopped,
    Swept,
    Work,
)

HINTS_PER_INBOX = 16
LEASES_PER_ENDPOINT = 8
TIES_PER_PAGE = 64


class RedisBatches:
    """`endpoints` are the configured ones; those that other deployments of this state ever used are learned from
    every sweep, so that no lease is forgotten after a change of configuration."""

    def __init__(self, redis: Upstash, endpoints: Sequence[Endpoint], tick_ms: int) -> None:
        self._redis = redis
        self._endpoints = {endpoint.id: endpoint for endpoint in endpoints}
        self._models = sorted({endpoint.model for endpoint in endpoints})
        self._tick_ms = tick_ms
        self._origins = {_origin(endpoint) for endpoint in endpoints}

    async def find_key(self, idempotency_key: str, body_hash: str) -> Committed | None:
        known = await self._redis.execute("HMGET", keys.idempotency(idempotency_key), "id", "hash")
        if not known[0]:
            return None
        return Committed("existing" if known[1] == body_hash else "mismatch", known[0])

    async def find_retry(self, batch_id: str) -> str | None:
        found: str | None = await self._redis.execute("HGET", keys.retry(batch_id), "id")
        return found

    async def commit(self, batch: NewBatch) -> Committed:
        own = keys.batch(batch.id)
        requests = batch.requests_by_model
        names = list(requests)
        idem = _idempotency(batch)
        upload = keys.upload(batch.upload) if batch.upload else None
        declared = [own, keys.plan(batch.id), keys.OPEN, keys.BATCHES, keys.SEQ, idem or own, upload or own]
        for name in names:
            declared += [keys.queue(name), keys.vtime(name)]
        args = {
            "id": batch.id,
            "idem_hash": batch.body_hash if idem else None,
            "upload_hash": batch.body_hash if upload else None,
            "fields": {
                "stage": batch.stage,
                "priority": batch.priority,
                "weight": batch.weight,
                "total": batch.total,
                "nonce": batch.nonce,
                "shards": batch.next_shard,
                "retry_of": batch.retry_of or "",
            },
            "parts": [json.dumps(asdict(part), separators=(",", ":")) for part in batch.parts],
            "totals": json.dumps([part.requests for part in batch.parts], separators=(",", ":")),
            "models": names,
            "requests": list(requests.values()),
            "expires_in_ms": batch.expires_in_ms,
            "retain_ms": batch.retain_ms,
        }
        answer = await self._redis.run("commit", declared, args)
        return Committed(**answer)

    async def sweep(self, batch_id: str | None, *, force: bool = False) -> Swept:
        own = keys.batch(batch_id) if batch_id else keys.TICK
        declared = [own, keys.TICK, keys.OPEN, keys.ENDPOINTS, *keys.INBOXES]
        for endpoint in self._endpoints:
            declared += [keys.waiting(endpoint), keys.running(endpoint), keys.rest(endpoint)]
        for model in self._models:
            declared += [keys.queue(model), keys.delayed(model)]
        args = {
            "read_batch": batch_id is not None,
            "throttle_ms": self._tick_ms,
            "force": force,
            "hints": HINTS_PER_INBOX,
            "leases": LEASES_PER_ENDPOINT,
            "endpoints": [asdict(endpoint) for endpoint in self._endpoints.values()],
            "models": self._models,
        }
        answer = await self._redis.run("sweep", declared, args)
        record = BatchRecord.parse(batch_id, answer["batch"]) if batch_id and answer["batch"] else None
        return Swept(record, self._work(answer["work"]) if answer["work"] else None)

    def _work(self, raw: Mapping[str, Any]) -> Work:
        for text in (raw["endpoints"] or {}).values():
            endpoint = Endpoint(**json.loads(text))
            # Calls carry the RunPod key: an address from Redis must be at a place that the settings name.
            if _origin(endpoint) in self._origins:
                self._endpoints.setdefault(endpoint.id, endpoint)
        leases = [parse_lease(item["endpoint"], item["lease"]) for item in raw["leases"] or []]
        return Work(
            hints=raw["hints"] or [],
            leases=leases,
            expired=raw["expired"] or [],
            models=raw["models"] or [],
            endpoints=list(self._endpoints.values()),
        )

    async def stop(self, batch_id: str, reason: Literal["canceled", "expired"]) -> Stopped:
        declared = [keys.batch(batch_id), keys.shards(batch_id), keys.OPEN, keys.METRICS_BATCHES]
        # A batch may need a model that this deployment does not serve any more.
        models = sorted({*self._models, *(endpoint.model for endpoint in self._endpoints.values())})
        for model in models:
            declared += [keys.queue(model), keys.delayed(model), keys.metrics(model)]
        endpoints = list(self._endpoints)
        declared += [keys.waiting(endpoint) for endpoint in endpoints]
        args = {
            "id": batch_id,
            "reason": reason,
            "call": secrets.token_hex(8),
            "models": models,
            "endpoints": endpoints,
        }
        answer = await self._redis.run("stop", declared, args)
        jobs = [(job["endpoint"], job["job"]) for job in answer["jobs"] or [] if job["job"]]
        return Stopped(answer["verdict"], jobs)

    async def delete(self, batch_id: str, step: Literal["mark", "finish"]) -> Deletion:
        own = [keys.batch(batch_id), keys.shards(batch_id), keys.plan(batch_id)]
        declared = [*own, keys.BATCHES, keys.deleted(batch_id)]
        return Deletion(**await self._redis.run("delete", declared, {"id": batch_id, "step": step}))

    async def listing(self, limit: int, after: str | None) -> tuple[list[BatchRecord], str | None]:
        score, last_id = _parse_token(after) if after else ("+inf", "")
        window = limit + 1 + (TIES_PER_PAGE if after else 0)
        # The client turns the reply into (member, score) pairs by itself.
        pairs: list[tuple[str, float]] = await self._redis.execute(
            "ZRANGE", keys.BATCHES, score, "-inf", "BYSCORE", "REV", "LIMIT", 0, window, "WITHSCORES"
        )
        if after:
            # Same millisecond: members come in reverse order, so those up to the last one shown are skipped.
            pairs = [(id_, at) for id_, at in pairs if at < float(score) or id_ < last_id]
        page = pairs[:limit]
        raws = await self._redis.pipeline([["HGETALL", keys.batch(id_)] for id_, _ in page])
        records = [
            BatchRecord.parse(id_, raw)
            for (id_, _), raw in zip(page, raws, strict=True)
            if raw and "deleted" not in raw
        ]
        token = f"{int(page[-1][1])}:{page[-1][0]}" if len(pairs) > limit else None
        return records, token

    async def part_totals(self, batch_id: str) -> list[int]:
        text = await self._redis.execute("HGET", keys.plan(batch_id), "totals")
        return [int(total) for total in json.loads(text)] if text else []

    async def part(self, batch_id: str, part: int) -> PartPlan | None:
        text = await self._redis.execute("HGET", keys.plan(batch_id), part)
        return PartPlan.parse(json.loads(text)) if text else None

    async def shards(self, batch_id: str, numbers: Sequence[int]) -> dict[int, ShardRecord]:
        if not numbers:
            return {}
        texts = await self._redis.execute("HMGET", keys.shards(batch_id), *numbers)
        return {
            number: ShardRecord.parse(number, text)
            for number, text in zip(numbers, texts, strict=True)
            if text is not None
        }


def _idempotency(batch: NewBatch) -> str | None:
    """Where it is noted that this batch was made, None where another may be made by the same call."""
    if batch.idempotency_key:
        return keys.idempotency(batch.idempotency_key)
    if batch.retry_of:
        return keys.retry(batch.retry_of)
    return keys.made_by(batch.job) if batch.job else None


def _origin(endpoint: Endpoint) -> tuple[str, str]:
    parts = urlsplit(endpoint.url)
    return parts.scheme, parts.netloc


def parse_lease(endpoint: str, text: str) -> Lease:
    batch_id, _, shard = text.rpartition(":")
    return Lease(endpoint, ShardRef(batch_id, int(shard)))


def _parse_token(token: str) -> tuple[str, str]:
    score, _, batch_id = token.partition(":")
    if not score.isdecimal() or not score.isascii() or not batch_id:
        raise InvalidRequest("page: not a token that a list gave", param="page")
    return score, batch_id
