"""The HTTP server of all endpoints: authenticates, counts, and dispatches /v2/{endpoint}/{operation}/... by table."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from aiohttp import web

from tests.local_cloud.fault_table import FaultTable
from tests.local_cloud.queue.call import Call, QueueSettings, reply, too_many_requests
from tests.local_cloud.queue.client_api import CLIENT_OPERATIONS, Operation
from tests.local_cloud.queue.core import EndpointQueue, Limits
from tests.local_cloud.queue.effects import WorkerEffect
from tests.local_cloud.queue.errors import Refused
from tests.local_cloud.queue.forgery import Forger
from tests.local_cloud.queue.live import LiveEndpoint
from tests.local_cloud.queue.rate_limits import RateLimits
from tests.local_cloud.queue.webhooks import WebhookSender
from tests.local_cloud.queue.worker_api import WORKER_OPERATIONS
from tests.local_cloud.serving import LocalServer

_MAX_BODY_BYTES = 32_000_000
_TICK_S = 0.1
_KNOWN_OPERATIONS = {operation for _, operation in (*CLIENT_OPERATIONS, *WORKER_OPERATIONS)}


class QueueServer:
    """The local RunPod. `on_worker(endpoint, effect)` is called when something has to be done about a worker."""

    def __init__(
        self,
        endpoints: Iterable[str],
        settings: QueueSettings,
        limits: Limits,
        faults: FaultTable,
        *,
        seed: str,
        webhook_delays_s: Sequence[float],
        on_worker: Callable[[str, WorkerEffect], None],
    ) -> None:
        self.faults = faults
        self.webhooks = WebhookSender(faults, Forger(seed), webhook_delays_s)
        self.calls: dict[str, Counter[str]] = {}
        self.endpoints: dict[str, LiveEndpoint] = {}
        self._settings = settings
        self._limits: dict[str, RateLimits] = {}
        self._ticker: asyncio.Task[None] | None = None
        for name in endpoints:
            core = EndpointQueue(lambda: str(uuid.uuid4()), limits, faults.fires)
            self.calls[name] = Counter()
            self._limits[name] = RateLimits()
            self.endpoints[name] = LiveEndpoint(
                name, core, time.monotonic, on_end=self.webhooks.send, on_worker=on_worker
            )
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/v2/{endpoint}/{operation:.*}", self._dispatch)
        self._server = LocalServer(app)

    async def start(self) -> str:
        """Starts serving; the base URL, without a path."""
        self._ticker = asyncio.create_task(self._tick())
        return await self._server.start()

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self._server.stop()
        await self.webhooks.close()

    async def _tick(self) -> None:
        while True:
            for endpoint in self.endpoints.values():
                endpoint.advance()
            await asyncio.sleep(_TICK_S)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        endpoint = self.endpoints.get(request.match_info["endpoint"])
        operation, *path = request.match_info["operation"].split("/")
        if endpoint is None or operation not in _KNOWN_OPERATIONS:
            return reply({"error": "not found"}, status=404)
        self.calls[endpoint.name][operation] += 1
        key = (request.method, operation)
        for_caller, for_worker = CLIENT_OPERATIONS.get(key), WORKER_OPERATIONS.get(key)
        # A worker is known by its unguessable id: the key it sends is whatever the SDK finds, and a developer's own
        # configuration file of the RunPod command line outranks the environment there.
        known_worker = bool(path) and path[0] in endpoint.core.workers
        authorized = (
            known_worker
            if for_worker is not None
            else request.headers.get("Authorization") == f"Bearer {self._settings.api_key}"
        )
        handle = for_worker or for_caller
        if handle is None:
            return reply({"error": "method not allowed"}, status=405)
        if not authorized:
            return reply({"error": "unauthorized"}, status=401)
        call = Call(request, endpoint, tuple(path), self._settings, self.faults)
        if self._settings.rate_limited:
            return await self._limited(call, operation, handle)
        return await _answer(call, handle)

    async def _limited(self, call: Call, operation: str, handle: Operation) -> web.StreamResponse:
        limits = self._limits[call.endpoint.name]
        if not limits.enter(operation, time.monotonic()):
            return too_many_requests()
        try:
            return await _answer(call, handle)
        finally:
            limits.leave(operation)


async def _answer(call: Call, handle: Operation) -> web.StreamResponse:
    try:
        return await handle(call)
    except Refused as refusal:
        return reply({"error": str(refusal)}, status=refusal.status_code)
