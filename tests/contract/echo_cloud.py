"""What the tests of the queue protocol share: a local RunPod with echo workers, a caller, a webhook receiver."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
from aiohttp import web

from tests.local_cloud.cloud import LocalCloud, local_cloud
from tests.local_cloud.queue.job import JsonObject
from tests.local_cloud.serving import LocalServer
from tests.local_cloud.settings import LocalSettings

T = TypeVar("T")

ECHO_MODULE = "tests.contract.echo_worker"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> JsonObject:
        decoded = json.loads(self.raw)
        assert isinstance(decoded, dict)
        return decoded


class Caller:
    """Calls one cloud's endpoints with its key."""

    def __init__(self, cloud: LocalCloud, session: aiohttp.ClientSession) -> None:
        self.cloud = cloud
        self._session = session

    async def call(
        self, method: str, endpoint: str, path: str, body: object = None, key: str | None = None
    ) -> Answer:
        headers = {"Authorization": f"Bearer {self.cloud.api_key if key is None else key}"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        url = f"{self.cloud.endpoints[endpoint]}{path}"
        async with self._session.request(method, url, data=data, headers=headers) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def control(self, method: str, path: str, body: object = None) -> Answer:
        async with self._session.request(method, self.cloud.control_url + path, json=body) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def run(self, endpoint: str, job_input: Mapping[str, object], **fields: object) -> str:
        """Submits a job by /run; its id."""
        answer = await self.call("POST", endpoint, "/run", {"input": job_input, **fields})
        assert answer.status == 200, answer.raw
        assert answer.body["status"] == "IN_QUEUE"
        return str(answer.body["id"])

    async def runsync(self, endpoint: str, job_input: Mapping[str, object], **fields: object) -> JsonObject:
        return (await self.call("POST", endpoint, "/runsync", {"input": job_input, **fields})).body

    async def end_of(self, endpoint: str, job_id: str) -> JsonObject:
        return (await self.call("GET", endpoint, f"/status-sync/{job_id}?wait=60000")).body

    async def status(self, endpoint: str, job_id: str) -> JsonObject:
        return (await self.call("GET", endpoint, f"/status/{job_id}")).body

    async def workers(self, endpoint: str) -> list[dict[str, object]]:
        listed = (await self.control("GET", "/workers")).body[endpoint]
        assert isinstance(listed, list)
        return listed


@dataclass(slots=True)
class WebhookReceiver:
    """Records what it is sent; answers 200, or the statuses in `answers` first."""

    url: str = ""
    received: list[Answer] = field(default_factory=list)
    answers: deque[int] = field(default_factory=deque)

    async def receive(self, request: web.Request) -> web.Response:
        self.received.append(Answer(200, request.headers, await request.read()))
        return web.Response(status=self.answers.popleft() if self.answers else 200)


@asynccontextmanager
async def echo_cloud(workers: Mapping[str, int]) -> AsyncIterator[Caller]:
    """A local RunPod, without Redis and S3, whose endpoints all run the echo worker; short pings and pauses."""
    chosen = LocalSettings(
        workers=workers,
        handlers=dict.fromkeys(workers, ECHO_MODULE),
        services=False,
        webhook_delays_s=(0.0, 0.05, 0.05),
        ping_interval_ms=1000,
        ping_grace_s=4.0,
        min_execution_timeout_ms=100,
    )
    async with local_cloud(chosen) as cloud, aiohttp.ClientSession() as session:
        yield Caller(cloud, session)


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    app = web.Application(client_max_size=32_000_000)
    app.router.add_route("*", "/{path:.*}", receiver.receive)
    server = LocalServer(app)
    receiver.url = await server.start()
    try:
        yield receiver
    finally:
        await server.stop()


async def eventually(look: Callable[[], Awaitable[T]], claim: str, timeout_s: float = 20.0) -> T:
    """The first result that is true; fails with the claim when the time is over."""
    until_s = time.monotonic() + timeout_s
    while True:
        if found := await look():
            return found
        assert time.monotonic() < until_s, f"not within {timeout_s:g} s: {claim}"
        await asyncio.sleep(0.02)
