"""The uploads port over Redis: the parts of batches to come."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from shared.core.sharding import PartPlan
from shared.ports.state import PartDraft, Reserved, Upload, UploadedPart

PART = "part:"


class RedisUploads:
    """`window_ms` is how long after its first part a batch can be made of an upload."""

    def __init__(self, redis: Upstash, max_requests: int, max_bytes: int, window_ms: int) -> None:
        self._redis = redis
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._window_ms = window_ms

    async def find(self, key: str) -> Upload | None:
        raw: dict[str, str] = await self._redis.execute("HGETALL", keys.upload(key))
        if not raw:
            return None
        parts = {int(name[len(PART) :]): _part(text) for name, text in raw.items() if name.startswith(PART)}
        made = (raw["id"], raw["hash"]) if "id" in raw else None
        # Without a nonce where it ended by itself in the middle of a create.
        return Upload(raw.get("nonce", ""), raw.get("options", ""), parts, made)

    async def reserve(self, key: str, part: PartDraft) -> Reserved:
        args = {
            "step": "reserve",
            "part": part.number,
            "hash": part.hash,
            "requests": part.plan.requests,
            "bytes": part.size_bytes,
            "plan": json.dumps(asdict(part.plan), separators=(",", ":")),
            "nonce": part.nonce,
            "options": part.options,
            "max_requests": self._max_requests,
            "max_bytes": self._max_bytes,
            "window_ms": self._window_ms,
        }
        return await self._run(key, args)

    async def confirm(self, key: str, part: int, nonce: str) -> Reserved:
        return await self._run(key, {"step": "confirm", "part": part, "nonce": nonce})

    async def _run(self, key: str, args: dict[str, Any]) -> Reserved:
        answer = await self._redis.run("upload", [keys.upload(key)], args)
        return Reserved(answer["verdict"], answer["nonce"], answer["id"])


def _part(text: str) -> UploadedPart:
    raw = json.loads(text)
    return UploadedPart(raw["hash"], PartPlan.parse(json.loads(raw["plan"])), bool(raw["stored"]))
