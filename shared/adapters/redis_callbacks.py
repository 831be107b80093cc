"""The callbacks' store over Redis: two fields more of a batch's hash, and a set of what is due."""

from __future__ import annotations

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from shared.core.callbacks import Noted
from shared.core.shards import BatchRecord


class RedisCallbacks:
    def __init__(self, redis: Upstash) -> None:
        self._redis = redis

    async def load(self, batch_id: str) -> BatchRecord | None:
        raw = await self._redis.execute("HGETALL", keys.batch(batch_id))
        batch = BatchRecord.parse(batch_id, raw) if raw and "deleted" not in raw else None
        if batch is None or batch.callback is None or batch.callback.state != "pending":
            await self._redis.execute("ZREM", keys.CALLBACKS, batch_id)
            return None
        return batch

    async def note(self, batch_id: str, number: int, noted: Noted) -> None:
        args = {
            "id": batch_id,
            "attempt": number,
            "state": noted.state,
            "fault": noted.fault,
            "after_ms": noted.after_ms,
        }
        await self._redis.run("callback", [keys.batch(batch_id), keys.CALLBACKS], args)
