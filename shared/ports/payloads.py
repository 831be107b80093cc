"""Where shard inputs, outputs and a batch's order live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

# A payload outlives the record that points at it.
PAYLOAD_SLACK_MS = 3_600_000


class Payloads(Protocol):
    """Immutable blobs by key, in whichever tier suits their size. Raises StorageUnavailable or StateUnavailable."""

    async def put(self, items: Mapping[str, bytes], ttl_ms: int) -> None:
        """Store all; durable when it returns. Writing a key again with the same bytes is harmless."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The blobs in the order of `keys`, None for what is not there."""

    async def delete(self, keys: Sequence[str]) -> None: ...

    def inline(self, data: bytes) -> str | None:
        """The stored form of a blob that may travel inside a settle, None where it is too large for that."""

    async def check(self) -> None:
        """Raise where a tier can't be reached."""


def input_key(nonce: str, shard: int) -> str:
    return f"payload:{nonce}:in:{shard}"


def output_key(nonce: str, shard: int, epoch: int) -> str:
    return f"payload:{nonce}:out:{shard}:{epoch}"


def order_key(nonce: str, part: int) -> str:
    return f"payload:{nonce}:order:{part}"


def ids_key(nonce: str, part: int) -> str:
    """Digests of the custom_ids of an uploaded part, until a batch was made of it."""
    return f"payload:{nonce}:ids:{part}"
