"""Payloads in two tiers: small ones as text in Redis, larger ones in S3 with only their S3 key in Redis.

So every payload is found by one Redis read, and a settle can carry a small output by itself.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

from shared.adapters.s3 import S3
from shared.adapters.upstash import Upstash
from shared.errors import StorageUnavailable

S3_MARK = "s3:"
S3_AT_ONCE = 8
KEYS_PER_DELETE = 500


class TieredPayloads:
    """`inline_bytes` is the largest stored text (compressed, base64) that stays in Redis. Without `s3` everything
    does."""

    def __init__(self, redis: Upstash, s3: S3 | None, inline_bytes: int) -> None:
        self._redis = redis
        self._s3 = s3
        self._inline_bytes = inline_bytes
        self._gate = asyncio.Semaphore(S3_AT_ONCE)

    def inline(self, data: bytes) -> str | None:
        text = b64encode(data).decode("ascii")
        return text if self._s3 is None or len(text) <= self._inline_bytes else None

    async def put(self, items: Mapping[str, bytes], ttl_ms: int) -> None:
        texts = {key: self.inline(data) for key, data in items.items()}
        # S3 first: a Redis entry never points at an object that is not there yet.
        await asyncio.gather(*(self._upload(key, items[key]) for key, text in texts.items() if text is None))
        await self._redis.pipeline(
            [
                ["SET", key, _s3_mark(key) if text is None else text, "PX", ttl_ms]
                for key, text in texts.items()
            ]
        )

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        texts: list[str | None] = await self._redis.execute("MGET", *keys)
        return list(await asyncio.gather(*(self._load(text) for text in texts)))

    async def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), KEYS_PER_DELETE):
            chunk = keys[start : start + KEYS_PER_DELETE]
            if self._s3 is not None:
                await self._s3.delete([_s3_key(key) for key in chunk])
            await self._redis.execute("DEL", *chunk)

    async def check(self) -> None:
        await self._redis.execute("GET", "payload:none")
        if self._s3 is not None:
            await self._s3.check()

    async def _upload(self, key: str, data: bytes) -> None:
        if self._s3 is None:
            raise StorageUnavailable("no S3 is configured for a payload of this size")
        async with self._gate:
            await self._s3.put(_s3_key(key), data)

    async def _load(self, text: str | None) -> bytes | None:
        if text is None:
            return None
        if text.startswith(S3_MARK):
            if self._s3 is None:
                return None
            async with self._gate:
                return await self._s3.get(text[len(S3_MARK) :])
        return b64decode(text)


def _s3_key(key: str) -> str:
    """`payload:{nonce}:in:3` as `payload/{nonce}/in/3`: one folder a batch."""
    return key.replace(":", "/")


def _s3_mark(key: str) -> str:
    return S3_MARK + _s3_key(key)
