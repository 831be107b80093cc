"""What every input must be before anything recursive looks at it: plain JSON, bounded in depth and in size.

Validation, hashing and the writing of JSON follow an input's nesting, and hold the interpreter while they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.errors import InvalidRequest, TooLarge

DEPTH_MAX = 100
# Each unknown field of an object is a fault, and validation collects the faults of an object.
FIELDS_MAX = 10_000
WHOLE_NUMBER_BITS = 64
PATH_MAX_CHARS = 200

Part = int | str


def check_bounds(payload: Mapping[str, Any], max_bytes: int) -> None:
    """Raises InvalidRequest, which names the first field at fault, or TooLarge where the names and texts in `payload`
    have more than `max_bytes` in all."""
    left_bytes = max_bytes
    path: list[Part] = []
    for value in _values(payload, path):
        left_bytes -= _text_bytes(path[-1], path) + _text_bytes(value, path)
        if left_bytes < 0:
            field = field_path(path[:1])
            raise TooLarge(f"{field}: at most {max_bytes} bytes in a call", param=field)
        if fault := _fault(value, len(path)):
            raise InvalidRequest(f"{field_path(path)}: {fault}", param=field_path(path))


def _values(payload: Mapping[str, Any], path: list[Part]) -> Iterator[Any]:
    """Every value in `payload`, an object or a list before what it holds. `path` says where the latest one stands.
    Without recursion; what holds others is looked into only after its turn."""
    walks = [_entries(payload)]
    while walks:
        for name, value in walks[-1]:
            path.append(name)
            yield value
            if isinstance(value, (dict, list)):
                walks.append(_entries(value))
                break
            path.pop()
        else:
            walks.pop()
            if path:
                path.pop()


def _entries(value: Mapping[str, Any] | list[Any]) -> Iterator[tuple[Part, Any]]:
    return iter(enumerate(value) if isinstance(value, list) else value.items())


def _text_bytes(value: Any, path: Iterable[Part]) -> int:
    """The size of a text in UTF-8; 0 for anything else. Raises InvalidRequest for a lone surrogate."""
    if not isinstance(value, str):
        return 0
    if value.isascii():
        return len(value)
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        field = field_path(path)
        raise InvalidRequest(f"{field}: must be valid Unicode text", param=field) from None


def _fault(value: Any, depth: int) -> str:
    if isinstance(value, (dict, list)):
        if value and depth >= DEPTH_MAX:
            return f"nested too deep: at most {DEPTH_MAX} levels in a call"
        if isinstance(value, dict) and len(value) > FIELDS_MAX:
            return f"must have at most {FIELDS_MAX} fields"
    elif isinstance(value, int):
        if value.bit_length() > WHOLE_NUMBER_BITS:
            return f"must be a whole number of at most {WHOLE_NUMBER_BITS} bits"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return "must be a finite number"
    elif value is not None and not isinstance(value, str):
        return "must be a JSON value"
    return ""


def field_path(parts: Iterable[Part]) -> str:
    """`("requests", 3, "custom_id")` as `requests[3].custom_id`: valid text of a bounded length, whatever the names."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    if len(path) > PATH_MAX_CHARS:
        path = f"{path[: PATH_MAX_CHARS - 3]}..."
    return path.encode("utf-8", "replace").decode()
