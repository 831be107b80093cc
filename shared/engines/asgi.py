"""Calls an ASGI app in this process: vLLM's own OpenAI layer, without a port and without a second process.

Unlike httpx's transport for ASGI this hands on a streamed body as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from shared.ports.engine import Call, Reply

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
# An app that was told of the disconnect has this long to stop by itself.
CLOSE_S = 5.0


class AppFailed(Exception):
    """The app ended without an answer."""


class _Exchange:
    """One request and its response, the app running in a task."""

    def __init__(self, app: App, call: Call) -> None:
        self._body = b"" if call.body is None else json.dumps(call.body).encode()
        self._sent = False
        self._closed = asyncio.Event()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._run(app, _scope(call)))

    async def _run(self, app: App, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._messages.put)
        finally:
            await self._messages.put(None)

    async def _receive(self) -> Message:
        if self._sent:
            await self._closed.wait()
            return {"type": "http.disconnect"}
        self._sent = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def start(self) -> Message:
        message = await self._messages.get()
        if message is None:
            raise AppFailed(repr(self._task.exception())) from self._task.exception()
        return message

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        while (message := await self._messages.get()) is not None:
            if body := message.get("body"):
                yield body
            if not message.get("more_body", False):
                return

    async def close(self) -> None:
        """The disconnect makes the app abort its request; a cancellation alone may be swallowed there."""
        self._closed.set()
        _, waiting = await asyncio.wait([self._task], timeout=CLOSE_S)
        for task in waiting:
            task.cancel()
        # What failed behind the answer is in the app's own log.
        with contextlib.suppress(Exception):
            await asyncio.gather(self._task, return_exceptions=True)


class _Chunks(AsyncGenerator[bytes, None]):
    """The body of an exchange, which ends with it. Not a generator function: closing one that was never asked for a
    chunk runs nothing of it, and the app would go on for nobody."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._chunks = exchange.chunks()

    async def asend(self, value: None) -> bytes:
        try:
            return await self._chunks.asend(value)
        except BaseException:
            await self._exchange.close()
            raise

    async def athrow(self, *error: Any) -> bytes:
        try:
            return await self._chunks.athrow(*error)
        finally:
            await self._exchange.close()

    async def aclose(self) -> None:
        try:
            await self._chunks.aclose()
        finally:
            await self._exchange.close()


async def call_app(app: App, call: Call) -> Reply:
    """Raises AppFailed where the app gives no answer."""
    exchange = _Exchange(app, call)
    try:
        head = await exchange.start()
    except BaseException:
        await exchange.close()
        raise
    kind = next((value for name, value in head.get("headers", ()) if name.lower() == b"content-type"), b"")
    return Reply(int(head["status"]), kind.startswith(b"text/event-stream"), _Chunks(exchange))


def _scope(call: Call) -> Message:
    path = call.path
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"engine"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
