"""Calling an ASGI app in the process: bodies as they come, and an end that the app hears of."""

import asyncio
import json
from typing import Any

import pytest

from shared.engines.asgi import AppFailed, call_app
from shared.ports.engine import Call

JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


async def test_an_app_gets_the_call_and_its_answer_comes_back() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        request = await receive()
        answer = {"method": scope["method"], "path": scope["path"], "body": json.loads(request["body"])}
        await send({"type": "http.response.start", "status": 201, "headers": JSON})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    reply = await call_app(echo, Call("POST", "/v1/completions", {"prompt": "é"}))
    assert (reply.status_code, reply.streaming) == (201, False)
    [body] = [chunk async for chunk in reply.chunks]
    assert json.loads(body) == {"method": "POST", "path": "/v1/completions", "body": {"prompt": "é"}}


async def test_chunks_arrive_before_the_app_has_ended() -> None:
    go_on = asyncio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": False})

    reply = await call_app(stream, Call("POST", "/v1/completions", {}))
    assert reply.streaming
    assert await anext(reply.chunks) == b"data: 1\n\n"
    go_on.set()
    assert [chunk async for chunk in reply.chunks] == [b"data: 2\n\n"]


async def test_who_stops_reading_disconnects_and_the_app_ends() -> None:
    heard: list[str] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        heard.append((await receive())["type"])

    reply = await call_app(endless, Call("POST", "/v1/completions", {}))
    await anext(reply.chunks)
    await reply.chunks.aclose()
    assert heard == ["http.disconnect"]


async def test_an_answer_that_nobody_began_to_read_ends_its_app_too() -> None:
    heard: list[str] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        heard.append((await receive())["type"])

    reply = await call_app(endless, Call("POST", "/v1/completions", {}))
    await reply.chunks.aclose()
    assert heard == ["http.disconnect"]


async def test_an_app_that_does_not_hear_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.engines.asgi.CLOSE_S", 0.01)
    ended: list[bool] = []

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    reply = await call_app(deaf, Call("POST", "/v1/completions", {}))
    await anext(reply.chunks)
    await reply.chunks.aclose()
    assert ended == [True]


async def test_an_app_that_fails_without_an_answer_is_told_as_that() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("out of order")

    with pytest.raises(AppFailed, match="out of order"):
        await call_app(broken, Call("GET", "/v1/models"))


async def test_a_call_that_is_cancelled_before_the_answer_disconnects() -> None:
    heard: list[str] = []
    waiting = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting.set()
        heard.append((await receive())["type"])

    task = asyncio.create_task(call_app(slow, Call("POST", "/v1/completions", {})))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == ["http.disconnect"]
