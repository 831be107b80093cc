"""A server in front of another one (or alone) that loses replies, answers HTML, or keeps silent, as told."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.local_cloud.serving import LocalServer

HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class Answer:
    """What a server says by itself. `silent`: nothing, until the client hangs up."""

    status: int = 200
    text: str = ""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    silent: bool = False


BAD_GATEWAY = Answer(502, HTML, "text/html")
SILENCE = Answer(silent=True)


@dataclass
class Call:
    method: str
    path: str
    authorization: str
    body: bytes


class Misbehaving:
    """`answers` are used up call by call; `lose` calls are passed on and their replies dropped; then all is passed
    on to `target`, or answered with `default` where there is none."""

    def __init__(self, target: str | None = None, default: Answer | None = None) -> None:
        self.url = ""
        self.answers: deque[Answer] = deque()
        self.lose = 0
        self.calls: list[Call] = []
        self._target = target
        self._default = default or Answer(text="{}")
        self._session: aiohttp.ClientSession | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        authorization = request.headers.get("Authorization", "")
        self.calls.append(Call(request.method, request.path_qs, authorization, body))
        if self.answers:
            return await _say(self.answers.popleft())
        if self._target is None:
            return await _say(self._default)
        assert self._session is not None
        async with self._session.request(
            request.method,
            self._target + request.path_qs,
            data=body,
            headers={"Authorization": authorization, "Content-Type": request.content_type},
        ) as answer:
            text = await answer.read()
            status = answer.status
        if self.lose:
            self.lose -= 1
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=status, body=text, content_type="application/json")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Misbehaving"]:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self.handle)
        server = LocalServer(app)
        self.url = await server.start()
        async with aiohttp.ClientSession() as self._session:
            yield self
        await server.stop()


async def _say(answer: Answer) -> web.StreamResponse:
    if answer.silent:
        await asyncio.Event().wait()
    return web.Response(
        status=answer.status, text=answer.text, content_type=answer.content_type, headers=answer.headers
    )
