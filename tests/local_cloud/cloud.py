"""The local cloud as one object: starts the queue server, Redis, S3 and the workers, and ends them together."""

import asyncio
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.local_cloud.control import ControlServer
from tests.local_cloud.failpoints.command import with_failpoints
from tests.local_cloud.failpoints.source import Failpoints
from tests.local_cloud.failure import StartFailure
from tests.local_cloud.fault_sources import FaultSources, OwnFaults, RemoteFaults
from tests.local_cloud.fault_table import FaultTable
from tests.local_cloud.guard import Guard
from tests.local_cloud.processes import own_usage, usage
from tests.local_cloud.queue.call import QueueSettings
from tests.local_cloud.queue.core import Limits
from tests.local_cloud.queue.effects import LostWorkerIdle, RestartRequested, WorkerEffect, WorkerLost
from tests.local_cloud.queue.faults import FAULTS
from tests.local_cloud.queue.server import QueueServer
from tests.local_cloud.services import Service, make_webhook_token, start_service
from tests.local_cloud.settings import LocalSettings, Program
from tests.local_cloud.worker_env import engine_env, platform_env, product_env
from tests.local_cloud.worker_pool import WorkerPool

REPOSITORY = Path(__file__).resolve().parents[2]


class LocalCloud:
    """Everything on 127.0.0.1; the addresses and keys are attributes once `start` has returned."""

    def __init__(self, settings: LocalSettings) -> None:
        self.api_key = f"rpa_local_{secrets.token_hex(16)}"
        self.endpoints: dict[str, str] = {}
        self.batch_url = self.control_url = ""
        self.redis_url = self.redis_token = self.webhook_token = ""
        self.s3_endpoint_url = self.s3_bucket = ""
        self.log_dir = Path()
        self.worker_env: dict[str, str] = {}
        self.faults = FaultTable(FAULTS, settings.seed)
        self.fault_sources = FaultSources()
        self.fault_sources.add(OwnFaults(self.faults))
        self.queue = QueueServer(
            settings.handlers,
            QueueSettings(
                self.api_key,
                min_execution_timeout_ms=settings.min_execution_timeout_ms,
                rate_limited=settings.rate_limited,
            ),
            Limits(ping_grace_s=settings.ping_grace_s),
            self.faults,
            seed=settings.seed,
            webhook_delays_s=settings.webhook_delays_s,
            on_worker=self._look_after_worker,
        )
        self._settings = settings
        self._worker_key = secrets.token_hex(16)
        self._control = ControlServer(self, self.fault_sources)
        self._pools: dict[str, WorkerPool] = {}
        self._redis: Service | None = None
        self._storage: Service | None = None
        self._guard: Guard | None = None
        self._failpoints: Path | None = None

    def description(self) -> dict[str, object]:
        """The line that `./build.sh local` prints."""
        return {
            "batch_url": self.batch_url,
            "endpoints": self.endpoints,
            "api_key": self.api_key,
            "redis_url": self.redis_url,
            "redis_token": self.redis_token,
            "s3_endpoint_url": self.s3_endpoint_url,
            "s3_bucket": self.s3_bucket,
            "control_url": self.control_url,
            "log_dir": str(self.log_dir),
        }

    async def start(self) -> None:
        """Starts everything and waits until all of it answers; raises StartFailure, with nothing left running."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends every process; running jobs are abandoned."""
        await asyncio.gather(*(pool.stop() for pool in self._pools.values()))
        services = [service for service in (self._redis, self._storage) if service is not None]
        await asyncio.gather(
            self._control.stop(), self.queue.stop(), *(service.stop() for service in services)
        )
        if self._guard is not None:
            self._guard.close()

    def workers(self) -> dict[str, list[dict[str, object]]]:
        return {name: pool.describe() for name, pool in self._pools.items()}

    def scale(self, endpoint: str, count: int) -> None:
        """Starts or drains workers; raises KeyError for an unknown endpoint."""
        self._pools[endpoint].scale(count)

    def signal(self, worker_id: str, number: signal.Signals) -> None:
        """Signals a worker's process; raises KeyError for one that does not run here."""
        if not any(pool.signal(worker_id, number) for pool in self._pools.values()):
            raise KeyError(worker_id)

    def overrun_jobs(self, endpoint: str) -> int:
        """Ends an endpoint's running jobs as if their time were up, and gives their number; raises KeyError for an
        unknown endpoint."""
        return self.queue.endpoints[endpoint].overrun()

    async def release_webhooks(self) -> int:
        """Sends the webhooks that a fault held back, the last one first; the number of them."""
        return await self.queue.webhooks.release()

    async def stats(self) -> dict[str, object]:
        jobs = {
            name: {state.value: count for state, count in endpoint.core.counts().items()}
            for name, endpoint in self.queue.endpoints.items()
        }
        return {
            "redis": await self._redis_control("GET", "/_control/stats") if self._redis else {},
            "runpod": {name: dict(calls) for name, calls in self.queue.calls.items()},
            "webhooks": dict(self.queue.webhooks.counts),
            "jobs": jobs,
            "processes": await asyncio.to_thread(self._processes),
        }

    async def reset_stats(self) -> None:
        """Starts the counts of commands, calls and webhooks again; jobs and processes are counted on."""
        for calls in self.queue.calls.values():
            calls.clear()
        self.queue.webhooks.reset()
        if self._redis is not None:
            await self._redis_control("POST", "/_control/stats/reset")

    async def _start(self) -> None:
        settings = self._settings
        self._guard = Guard()
        self.log_dir = settings.log_dir or Path(tempfile.mkdtemp(prefix="local-cloud-"))
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartFailure(f"LOCAL_LOG_DIR can't be made: {error}") from None
        if settings.failpoints:
            self._failpoints = Path(tempfile.mkdtemp(prefix="failpoints-", dir=self.log_dir))
            self.fault_sources.add(Failpoints(self._failpoints))
        url, self.control_url = await asyncio.gather(self.queue.start(), self._control.start())
        self.endpoints = {name: f"{url}/v2/{name}" for name in self.queue.endpoints}
        self.batch_url = self.endpoints.get("batch-api", "")
        if settings.services:
            await self._start_services()
        self.worker_env = product_env(
            url,
            self.api_key,
            self._redis.ready if self._redis else {},
            self.webhook_token,
            self._storage.ready if self._storage else {},
            settings,
        )
        for name, module in settings.handlers.items():
            self._pools[name] = self._make_pool(name, module, url, self._guard)
            self._pools[name].scale(settings.workers.get(name, 1))
        await _all_or_first_failure(
            *(pool.wait_ready(settings.start_timeout_s) for pool in self._pools.values())
        )

    async def _start_services(self) -> None:
        await _all_or_first_failure(self._start_redis(), self._start_storage())

    async def _start_redis(self) -> None:
        self._redis = await self._start_service("redis", "tests.local_cloud.upstash")
        self.redis_url, self.redis_token = self._redis.ready["url"], self._redis.ready["token"]
        self.fault_sources.add(RemoteFaults(self.redis_url, self.redis_token))
        self.webhook_token = await make_webhook_token(self.redis_url, self.redis_token)

    async def _start_storage(self) -> None:
        self._storage = await self._start_service("s3", "tests.local_cloud.storage")
        self.s3_endpoint_url, self.s3_bucket = (
            self._storage.ready["endpoint_url"],
            self._storage.ready["bucket"],
        )
        self.fault_sources.add(RemoteFaults(self._storage.ready["control_url"]))

    def _look_after_worker(self, endpoint: str, effect: WorkerEffect) -> None:
        pool = self._pools[endpoint]
        match effect:
            case RestartRequested(worker_id):
                pool.replace(worker_id)
            case WorkerLost(worker_id):
                pool.refill(worker_id)
            case LostWorkerIdle(worker_id):
                pool.dismiss(worker_id)

    async def _start_service(self, name: str, module: str) -> Service:
        settings = self._settings
        env = {"LOCAL_SEED": settings.seed, "LOCAL_S3": settings.s3}
        return await start_service(name, module, self.log_dir, settings.start_timeout_s, env)

    def _make_pool(self, name: str, module: str, url: str, guard: Guard) -> WorkerPool:
        settings = self._settings
        own = Program((sys.executable, "-u", "-m", module), REPOSITORY, os.environ)
        if self._failpoints is not None:
            own = with_failpoints(own, self._failpoints)
        program = settings.programs.get(name, own)

        def env_of(worker_id: str) -> dict[str, str]:
            platform = platform_env(url, name, worker_id, self._worker_key, settings.ping_interval_ms)
            quiet = {"RUNPOD_DEBUG_LEVEL": os.environ.get("RUNPOD_DEBUG_LEVEL", "ERROR")}
            engine = engine_env(name, settings, program.env)
            return {**program.env, **quiet, **self.worker_env, **engine, **settings.env, **platform}

        return WorkerPool(
            self.queue.endpoints[name],
            program.command,
            env_of,
            folder=program.folder,
            log_dir=self.log_dir,
            guard=guard,
            drain_s=settings.drain_s,
        )

    def _processes(self) -> dict[str, object]:
        found: dict[str, object] = {"local-cloud": own_usage(os.getpid())}
        if self._redis is not None:
            found["redis-rest"] = own_usage(self._redis.pid)
            found["redis-engine"] = usage(int(self._redis.ready["engine_pid"]))
        if self._storage is not None:
            found["s3"] = usage(self._storage.pid)
        for workers in self.workers().values():
            found.update({str(worker["worker_id"]): usage(int(str(worker["pid"]))) for worker in workers})
        return found

    async def _redis_control(self, method: str, path: str) -> object:
        headers = {"Authorization": f"Bearer {self.redis_token}"}
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.request(method, self.redis_url + path) as answer,
        ):
            answer.raise_for_status()
            return await answer.json()


@asynccontextmanager
async def local_cloud(settings: LocalSettings | None = None) -> AsyncIterator[LocalCloud]:
    """A local cloud in this process (its workers, Redis and S3 are processes of their own)."""
    cloud = LocalCloud(settings or LocalSettings())
    await cloud.start()
    try:
        yield cloud
    finally:
        await cloud.stop()


async def _all_or_first_failure(*parts: Coroutine[object, object, None]) -> None:
    """Runs all; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
