"""One run's world: Redis, RunPod, S3 and the processes of the service, all in virtual time on one event loop."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx

from handlers.catalog import CARDS
from shared.config import Settings, load_settings
from shared.engines.simulated import SimTiming
from shared.errors import ServiceError
from shared.flow.operations import Operations
from shared.wiring import build_service
from tests.soak.faults import REDIS, Faults
from tests.soak.platform import CALLER_TIMEOUT_S, Endpoint
from tests.soak.receiver import HOST, Receiver
from tests.soak.redis import VirtualRedis
from tests.soak.storage import Bucket
from tests.soak.virtual import PROCESS, Process, VirtualLoop
from tests.soak.witness import Log

EPOCH_MS = 1_800_000_000_000
ENVIRONMENT = {
    "RUNPOD_API_KEY": "key",
    "UPSTASH_REDIS_REST_URL": "http://redis.test",
    "UPSTASH_REDIS_REST_TOKEN": "token",
    "WEBHOOK_TOKEN": "inbox-token",
    "MISTRAL_BASE_URL": "http://runpod.test/v2/mistral",
    "LLAMA_BASE_URL": "http://runpod.test/v2/llama",
    "S3_ENDPOINT_URL": "http://s3.test",
    "S3_BUCKET": "batches",
    "S3_ACCESS_KEY_ID": "id",
    "S3_SECRET_ACCESS_KEY": "secret",
    "ENGINE": "simulated",
    "CALLBACK_SECRET": "whsec_dGhlIHNvYWsncyBvd24gc2VjcmV0ISEh",
    "CALLBACK_ALLOW_PRIVATE": "1",
    "PAYLOAD_INLINE_BYTES": "700",
    "RESULTS_PAGE_BYTES": "4096",
    "MISTRAL_SHARD_REQUESTS": "8",
    "LLAMA_SHARD_REQUESTS": "4",
}


@dataclass(frozen=True)
class Answer:
    """What a caller got: an output, a typed error, or nothing (cut)."""

    output: Mapping[str, Any] | None = None
    error: ServiceError | None = None


class World(httpx.AsyncBaseTransport):
    """The network too: every HTTP call of the service comes through here."""

    def __init__(self, loop: VirtualLoop, redis: VirtualRedis, faults: Faults, concurrency: int) -> None:
        self.loop = loop
        self.redis = redis
        self.faults = faults
        self.log = Log()
        self.timing = SimTiming(ttft_ms=200, tpot_ms=20, slots=16)
        self.settings: Settings = load_settings(
            {**ENVIRONMENT, "WORKER_CONCURRENCY": str(concurrency)}, CARDS
        )
        self.bucket = Bucket(faults, loop.time)
        self.receiver = Receiver(faults, loop.time)
        self.endpoints = {name: Endpoint(name, loop, faults, self._push) for name in ("mistral", "llama")}
        self.processes: list[Process] = []
        self.violations: list[str] = []
        self._operations: list[tuple[Process, Operations]] = []
        self._calls: dict[Process, int] = {}
        self._strikes: dict[Process, int] = {}
        self._trace = sha256()

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + round(1000 * self.loop.time())

    def note(self, *facts: object) -> None:
        """Everything that happens leaves a mark: two runs of a seed have the same."""
        self._trace.update(f"{self.loop.time():.6f} {facts}\n".encode())

    def trace(self) -> str:
        return self._trace.hexdigest()[:16]

    # The network.

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._step()
        answer = self.loop.outside(self._serve(request))
        response = await asyncio.shield(answer)
        await self._step()
        return response

    async def _serve(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        if request.url.host == "redis.test":
            return await self._serve_redis(request)
        await asyncio.sleep(self.faults.rng.uniform(0.02, 0.3))
        if request.url.host == HOST:
            self.note("callback", request.url.path)
            return self.receiver.serve(request)
        _, _, endpoint, operation, *rest = request.url.path.split("/")
        self.note("runpod", endpoint, operation, rest)
        return await self.endpoints[endpoint].call(request, operation, rest[0] if rest else "")

    async def _serve_redis(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(self.faults.rng.uniform(0.001, 0.02))
        fault = self.faults.draw(self.loop.time(), *REDIS)
        await self._fail_before(fault)
        body = json.loads(request.content)
        is_pipeline = request.url.path == "/pipeline"
        commands = body if is_pipeline else [body]
        if fault in _REFUSALS:
            status, text = _REFUSALS[fault]
            refused: Any = {"error": text}
            return httpx.Response(status, json=[refused] * len(commands) if is_pipeline else refused)
        if fault == "redis_502":
            return httpx.Response(502, text="<html>Bad Gateway</html>")
        if fault == "redis_noscript" and commands[0][0] == "EVALSHA":
            return httpx.Response(400, json={"error": "NOSCRIPT No matching script. Please use EVAL."})
        answers = [self.redis.rest(command, self.now_ms) for command in commands]
        # Not the text: the engine orders the fields of a hash as it likes.
        self.note("redis", [command[:2] for command in commands], len(json.dumps(answers)))
        if fault in ("redis_timeout_after", "redis_reset_after"):
            await self._lose(fault)
        return httpx.Response(200, json=answers if is_pipeline else answers[0])

    async def _fail_before(self, fault: str | None) -> None:
        if fault in ("redis_timeout_before", "redis_reset_before"):
            await self._lose(fault)
        if fault == "redis_slow":
            await asyncio.sleep(self.faults.rng.uniform(1, 8))

    async def _lose(self, fault: str) -> None:
        if "timeout" in fault:
            await asyncio.sleep(2 * CALLER_TIMEOUT_S)
        raise httpx.ReadError("connection reset")

    async def _push(self, inbox: str, text: str) -> None:
        self.note("webhook", inbox, len(text))
        self.redis.plain(["RPUSH", inbox, text], self.now_ms)

    # Processes.

    def strike_at(self, process: Process, call: int) -> None:
        """Kill the process between two of its calls, the `call`-th from now on."""
        self._strikes[process] = self._calls.get(process, 0) + call

    async def _step(self) -> None:
        process = PROCESS.get()
        if process is None:
            return
        self._calls[process] = self._calls.get(process, 0) + 1
        if self._calls[process] == self._strikes.get(process):
            process.kill()
            await asyncio.Event().wait()

    async def start_batch_process(self) -> None:
        process = Process(f"batch-{len(self.processes)}")
        process.on_death = lambda: self._replace_batch_process(process)
        self.processes.append(process)
        operations = await self.loop.inside(process, self._connect())
        self._operations.append((process, operations))

    async def _connect(self) -> Operations:
        return build_service(self.settings).operations()

    def _replace_batch_process(self, process: Process) -> None:
        self._operations = [entry for entry in self._operations if entry[0] is not process]
        self.loop.outside(self.start_batch_process())

    # Callers.

    async def call(self, rng: random.Random, timeout_s: float = 60.0, **payload: Any) -> Answer:
        """One operation, as over /runsync: the caller may never hear of it."""
        if not self._operations:
            await asyncio.sleep(1.0)
            return Answer()
        process, operations = rng.choice(self._operations)
        task = self.loop.inside(process, operations.handle(payload))
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            return Answer()
        self.note("answer", payload["operation"], repr(task.exception()))
        error = task.exception()
        if error is None:
            return Answer(output=task.result())
        if isinstance(error, ServiceError):
            return Answer(error=error)
        raise error


_REFUSALS = {
    "redis_429": (429, "ERR max requests limit exceeded"),
    "redis_refused": (401, "WRONGPASS invalid or missing auth token"),
    "redis_oom": (400, "OOM command not allowed when used memory > 'maxmemory'."),
}
