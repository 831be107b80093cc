"""The stored form of payloads: compressed JSON. Shard inputs, shard outputs and a batch's order."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any


def encode(value: Any) -> bytes:
    """Compressed JSON. Lone surrogates and every other text survive (JSON escapes them)."""
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode("ascii"), 1)


def decode(data: bytes) -> Any:
    """The value that `encode` was given. Raises ValueError for bytes that are cut short or not ours."""
    try:
        return json.loads(zlib.decompress(data))
    except zlib.error as error:
        raise ValueError(f"not a payload: {error}") from None


def text_bytes(data: bytes) -> int:
    """How long the JSON of a payload is."""
    return len(zlib.decompress(data))


def encode_items(items: Sequence[str]) -> bytes:
    """A JSON list, compressed, from the JSON texts of its items."""
    return zlib.compress(("[" + ",".join(items) + "]").encode("ascii"), 1)
