"""Lua scripts as Upstash takes them: with the flag `allow-key-locking`, which real engines reject.

The flag is cut out before the engine sees the source, which changes the script's SHA-1. Clients go on using
the one they computed; the book knows both.
"""

import hashlib
import re
from dataclasses import dataclass

_FLAGS = re.compile(rb"\s+flags=(\S*)")
_FLAG = b"allow-key-locking"
_NAME = re.compile(rb"\s*--\s*name:\s*(\S+)")


@dataclass(frozen=True, slots=True)
class Script:
    """`sha` is that of the source as the client wrote it; `engine_sha` that of the source the engine runs."""

    sha: bytes
    engine_sha: bytes
    engine_source: bytes
    name: str | None


class ScriptBook:
    """The scripts seen so far. Forgetting is left to the engine, which answers NOSCRIPT."""

    def __init__(self) -> None:
        self._by_sha: dict[bytes, Script] = {}

    def admit(self, source: bytes) -> Script:
        sha = _sha1(source)
        if (script := self._by_sha.get(sha)) is None:
            engine_source = without_key_locking(source)
            script = Script(sha, _sha1(engine_source), engine_source, _name_of(source))
            self._by_sha[sha] = script
        return script

    def find(self, sha: bytes) -> Script | None:
        return self._by_sha.get(sha.lower())


def without_key_locking(source: bytes) -> bytes:
    """The source without that one flag; other flags, and the number of lines, stay."""
    first_line, newline, rest = source.partition(b"\n")
    found = _FLAGS.search(first_line)
    if not first_line.startswith(b"#!lua") or found is None:
        return source
    kept = [flag for flag in found[1].split(b",") if flag != _FLAG]
    flags = b" flags=" + b",".join(kept) if kept else b""
    return first_line[: found.start()] + flags + first_line[found.end() :] + newline + rest


def _name_of(source: bytes) -> str | None:
    """`xyz` if the second line is `-- name: xyz`."""
    lines = source.split(b"\n", 2)
    found = _NAME.match(lines[1]) if len(lines) > 1 else None
    return found[1].decode("utf-8", "replace") if found else None


def _sha1(source: bytes) -> bytes:
    return hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
