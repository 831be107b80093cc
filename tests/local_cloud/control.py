"""The control server: what a test or a benchmark may look at and change, beside the platform's own interfaces."""

import json
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import web

from tests.local_cloud.fault_sources import FaultSources
from tests.local_cloud.queue.call import reply
from tests.local_cloud.serving import LocalServer

SIGNALS = {
    "KILL": signal.SIGKILL,
    "TERM": signal.SIGTERM,
    "STOP": signal.SIGSTOP,
    "CONT": signal.SIGCONT,
}


class Controlled(Protocol):
    """What the control server can ask of the cloud."""

    def workers(self) -> dict[str, list[dict[str, object]]]: ...

    def scale(self, endpoint: str, count: int) -> None:
        """Raises KeyError for an unknown endpoint."""

    def signal(self, worker_id: str, number: signal.Signals) -> None:
        """Raises KeyError for a worker that this cloud does not run."""

    def overrun_jobs(self, endpoint: str) -> int:
        """Raises KeyError for an unknown endpoint."""

    async def release_webhooks(self) -> int: ...

    async def stats(self) -> dict[str, object]: ...

    async def reset_stats(self) -> None: ...


class ControlServer:
    def __init__(self, cloud: Controlled, faults: FaultSources) -> None:
        self._cloud = cloud
        self._faults = faults
        app = web.Application()
        app.add_routes(
            [
                web.get("/workers", self._workers),
                web.post("/workers", self._scale),
                web.post("/workers/{worker_id}/signal", self._signal),
                web.post("/jobs/overrun", self._overrun_jobs),
                web.post("/webhooks/release", self._release_webhooks),
                web.get("/faults", self._list_faults),
                web.post("/faults", self._set_faults),
                web.get("/stats", self._stats),
                web.post("/stats/reset", self._reset_stats),
            ]
        )
        app.middlewares.append(_answer_bad_requests)
        self._server = LocalServer(app)

    async def start(self) -> str:
        return await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    async def _workers(self, request: web.Request) -> web.StreamResponse:
        return reply(self._cloud.workers())

    async def _scale(self, request: web.Request) -> web.StreamResponse:
        body = await _object(request)
        endpoint, count = body.get("endpoint"), body.get("count")
        if (
            not isinstance(endpoint, str)
            or not isinstance(count, int)
            or isinstance(count, bool)
            or count < 0
        ):
            raise ValueError('the body must be {"endpoint": name, "count": 0 or more}')
        try:
            self._cloud.scale(endpoint, count)
        except KeyError as error:
            raise ValueError(f"unknown endpoint {endpoint!r}") from error
        return reply(self._cloud.workers())

    async def _signal(self, request: web.Request) -> web.StreamResponse:
        number = SIGNALS.get(str((await _object(request)).get("signal")))
        if number is None:
            raise ValueError(f'the body must be {{"signal": one of {", ".join(SIGNALS)}}}')
        worker_id = request.match_info["worker_id"]
        try:
            self._cloud.signal(worker_id, number)
        except KeyError:
            return reply({"error": f"no worker {worker_id!r} runs"}, status=404)
        return reply({})

    async def _overrun_jobs(self, request: web.Request) -> web.StreamResponse:
        endpoint = (await _object(request)).get("endpoint")
        if not isinstance(endpoint, str):
            raise ValueError('the body must be {"endpoint": name}')
        try:
            overrun = self._cloud.overrun_jobs(endpoint)
        except KeyError as error:
            raise ValueError(f"unknown endpoint {endpoint!r}") from error
        return reply({"overrun": overrun})

    async def _release_webhooks(self, request: web.Request) -> web.StreamResponse:
        return reply({"released": await self._cloud.release_webhooks()})

    async def _list_faults(self, request: web.Request) -> web.StreamResponse:
        return reply(await self._faults.get())

    async def _set_faults(self, request: web.Request) -> web.StreamResponse:
        await self._faults.set(await _object(request))
        return reply(await self._faults.get())

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        return reply(await self._cloud.stats())

    async def _reset_stats(self, request: web.Request) -> web.StreamResponse:
        await self._cloud.reset_stats()
        return reply({})


@web.middleware
async def _answer_bad_requests(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ValueError as error:
        return reply({"error": str(error)}, status=400)


async def _object(request: web.Request) -> Mapping[str, object]:
    body = json.loads(await request.read())
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body
