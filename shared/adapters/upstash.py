"""The one way to Redis: upstash-redis, bounded in time, its faults mapped to StateUnavailable, retried here alone.

Everything sent is idempotent: our scripts by design, and the few plain commands (GET, SET, DEL, reads) by nature. So
a call whose reply was lost is simply sent again. (The client's own retry is off: it would re-send anything.)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import httpx
from upstash_redis.asyncio import Redis as Client
from upstash_redis.errors import UpstashError

from shared.errors import StateUnavailable

ATTEMPTS = 3
CALL_TIMEOUT_S = 10.0
RETRY_PAUSE_S = 0.2
MAX_CALLS_AT_ONCE = 32
PIPELINE_BYTES = 4 * 1024 * 1024


# Scripts that have more in common than the prelude.
_COMMON = {"start": ("_losses",), "requeue": ("_losses",)}


@cache
def script(name: str) -> tuple[str, str]:
    """A script's full source and its SHA-1. Put together from fixed files only.

    The flag lets Upstash lock the declared keys instead of the whole database.
    """
    folder = files("shared.adapters") / "scripts"
    parts = [
        (folder / f"{part}.lua").read_text("utf-8") for part in ("_prelude", *_COMMON.get(name, ()), name)
    ]
    source = "\n".join(["#!lua flags=allow-key-locking", f"-- name: {name}", *parts])
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Upstash:
    """One client per process. `clock_offset_ms` moves the scripts' clock; tests use it to advance time."""

    def __init__(self, url: str, token: str, clock_offset_ms: Callable[[], int] = lambda: 0) -> None:
        self._client = Client(url, token, rest_encoding=None, rest_retries=0, allow_telemetry=False)
        self._clock_offset_ms = clock_offset_ms
        self._gate = asyncio.Semaphore(MAX_CALLS_AT_ONCE)

    async def run(self, name: str, keys: Sequence[str], args: Mapping[str, Any], bulk: str = "") -> Any:
        """Run script `name`; its reply as the value that its JSON stands for."""
        source, sha = script(name)
        tail: list[Any] = [len(keys), *keys, str(self._clock_offset_ms()), json.dumps(args), bulk]
        try:
            answer = await self._call(["EVALSHA", sha, *tail])
        except _ScriptUnknown:
            answer = await self._call(["EVAL", source, *tail])
        return json.loads(answer)

    async def execute(self, *command: Any) -> Any:
        """One plain command that is harmless to repeat."""
        return await self._call(list(command))

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Plain commands that are harmless to repeat, in as few round trips as Upstash's size limit allows."""
        answers: list[Any] = []
        for chunk in _chunks(commands):
            answers += await self._bounded(lambda chunk=chunk: self._send_pipeline(chunk))  # type: ignore[misc]
        return answers

    async def close(self) -> None:
        await self._client.close()

    async def _call(self, command: list[Any]) -> Any:
        return await self._bounded(lambda: self._client.execute(command))

    async def _send_pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        pipe = self._client.pipeline()
        for command in commands:
            pipe.execute(list(command))
        answers: list[Any] = await pipe.exec()
        if len(answers) != len(commands):
            raise ValueError("not one answer per command")
        return answers

    async def _bounded(self, send: Callable[[], Any]) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._gate:
                    return await asyncio.wait_for(send(), CALL_TIMEOUT_S)
            except UpstashError as error:
                raise _refused(error) from None
            except _NO_ANSWER as error:
                if attempt == ATTEMPTS:
                    kind = type(error).__name__
                    raise StateUnavailable(f"Redis gave no usable answer {ATTEMPTS} times ({kind})") from None
            await asyncio.sleep(RETRY_PAUSE_S * attempt)
        raise AssertionError("unreachable")


class _ScriptUnknown(StateUnavailable):
    """The server has not seen this script yet."""


# AttributeError and ValueError (JSONDecodeError) are what upstash-redis raises for a refused pipeline and for a
# body that is not its JSON, such as a proxy's 502 page.
_NO_ANSWER = (
    asyncio.TimeoutError,
    httpx.HTTPError,
    AttributeError,
    AssertionError,
    ValueError,
    KeyError,
    TypeError,
)


def _refused(error: UpstashError) -> StateUnavailable:
    text = str(error)
    if text.startswith("NOSCRIPT"):
        return _ScriptUnknown("the script is not loaded")
    return StateUnavailable(f"Redis refused a command: {text[:200]}")


def _chunks(commands: Sequence[Sequence[Any]]) -> list[list[Sequence[Any]]]:
    chunks: list[list[Sequence[Any]]] = []
    size_bytes = PIPELINE_BYTES
    for command in commands:
        length = sum(len(part) for part in command if isinstance(part, str))
        if size_bytes + length > PIPELINE_BYTES:
            chunks.append([])
            size_bytes = 0
        chunks[-1].append(command)
        size_bytes += length
    return chunks
