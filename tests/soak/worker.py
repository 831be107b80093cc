"""A GPU worker in virtual time: the product's handler with the SDK's take loop around it."""

from __future__ import annotations

import asyncio
from typing import Any

from handlers.catalog import CARDS
from handlers.model_worker import Handler
from shared.errors import ServiceError
from tests.local_cloud.queue.job import Job
from tests.soak.platform import Endpoint
from tests.soak.virtual import Process
from tests.soak.witness import WitnessEngine
from tests.soak.world import World

MODEL_OF = {"mistral": "mistral", "llama": "llama-70b"}
PING_S = 5.0
LOOK_S = 1.0
LEAVE_S = 8.0
GIVE_BACK_S = 5.0


class GpuWorker:
    """One place for a worker: when its process ends, the platform starts another one in it."""

    def __init__(self, world: World, endpoint: Endpoint, place: int) -> None:
        self._world = world
        self._endpoint = endpoint
        self._place = place
        self._number = 0
        self.start()

    def start(self) -> None:
        world, endpoint = self._world, self._endpoint
        self._number += 1
        worker_id = f"{endpoint.name}-{self._place}-{self._number}"
        process = Process(worker_id)
        life = _Life(world, endpoint, worker_id, process)
        process.on_death = process.on_replace = lambda: self._end(worker_id)
        process.on_term = life.leave
        world.processes.append(process)
        endpoint.core.workers.expect(worker_id)
        world.loop.inside(process, life.run())
        world.loop.outside(life.ping())

    def _end(self, worker_id: str) -> None:
        """The worker is gone or taken for lost: its jobs go elsewhere, and another one is started, once."""
        if worker_id in self._endpoint.core.workers:
            self._endpoint.remove_worker(worker_id)
            self._world.loop.outside(self._start_later())

    async def _start_later(self) -> None:
        await asyncio.sleep(self._world.faults.rng.uniform(1, 30))
        self.start()


class _Life:
    """One process from its start to its end."""

    def __init__(self, world: World, endpoint: Endpoint, worker_id: str, process: Process) -> None:
        self._world = world
        self._endpoint = endpoint
        self._id = worker_id
        self._process = process
        self._engine = WitnessEngine(world.timing, world.log, world.faults, process, world.loop.time)
        card = next(card for card in CARDS if card.name == MODEL_OF[endpoint.name])
        card = world.settings.cards[card.name]
        self._concurrency = card.concurrency()
        self._handler = Handler(card, world.settings, self._engine, self._concurrency)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._leaving = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        watch = loop.create_task(self._watch())
        while not self._leaving:
            free = self._concurrency - len(self._running)
            if free <= 0:
                await asyncio.sleep(LOOK_S)
                continue
            for job in await self._endpoint.take(self._id, free):
                self._running[job.id] = loop.create_task(self._run_job(job))
        del watch

    async def ping(self) -> None:
        """The SDK's ping process: it goes on while the main one is frozen."""
        while not self._process.dead:
            self._endpoint.core.ping(self._id, self._world.loop.time())
            await asyncio.sleep(PING_S)

    def leave(self) -> None:
        """SIGTERM, as handlers/drain.py does it around the SDK."""
        if not self._leaving:
            self._leaving = True
            self._world.loop.inside(self._process, self._drain())

    async def _drain(self) -> None:
        self._endpoint.core.drain_worker(self._id)
        await self._wait_until_idle(LEAVE_S)
        self._handler._give_back()
        await self._wait_until_idle(GIVE_BACK_S)
        self._process.kill()

    async def _wait_until_idle(self, timeout_s: float) -> None:
        end_s = self._world.loop.time() + timeout_s
        while self._running and self._world.loop.time() < end_s:  # noqa: ASYNC110 - jobs end in many ways
            await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        """The stop channel, and the end of a worker whose engine died."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._endpoint.stop_one(self._id)
            for job_id in self._endpoint.core.collect_stops(self._id):
                if job_id in self._running:
                    self._running[job_id].cancel()
            if not self._engine.alive and not self._leaving:
                self.leave()

    async def _run_job(self, job: Job) -> None:
        posted: dict[str, Any]
        try:
            output = [
                part async for part in self._handler.work({"id": job.id, "input": job.submission.input})
            ]
            posted = {"output": output}
        except asyncio.CancelledError:
            self._running.pop(job.id, None)
            return
        except Exception as error:  # noqa: BLE001 - the SDK posts any error
            if not isinstance(error, ServiceError):
                self._world.violations.append(f"a worker failed unexpectedly: {error!r}")
            # As handlers/entry.py reports it.
            told = error if isinstance(error, ServiceError) else ServiceError("Internal error")
            posted = {"error": told.to_body(job.id)}
        self._running.pop(job.id, None)
        self._endpoint.finish(self._id, job.id, posted)
