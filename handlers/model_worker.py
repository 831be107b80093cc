"""A model endpoint as a RunPod handler: shards of batches in, settled outputs and a small summary out; beside them
interactive calls (`handlers/interactive.py`).

`handlers/mistral` and `handlers/llama` differ in nothing but their model card.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from handlers.drain import Drain
from handlers.entry import Job, configured, read_settings, serve_stream
from handlers.interactive import chunks, is_interactive
from shared.config import Settings
from shared.core.cards import ModelCard
from shared.core.requests import parse
from shared.engines.catalog import build_engine
from shared.errors import EngineDead, InvalidRequest, WorkerLeaving
from shared.flow.room import Room
from shared.flow.worker import ShardInput, Worker
from shared.ports.engine import Engine
from shared.wiring import build_service


class Handler:
    """Connects at the first job, inside the SDK's event loop, and then says how much this worker takes."""

    def __init__(self, card: ModelCard, settings: Settings, engine: Engine, concurrency: int) -> None:
        self._card = card
        self._settings = settings
        self._engine = engine
        self._concurrency = concurrency
        self._ready: asyncio.Task[Worker] | None = None
        self._worker: Worker | None = None
        self._room = Room()
        self.drain = Drain(settings.drain_s, self._give_back, lambda: engine.alive, under_way=self._feeding)

    async def work(self, job: Job) -> AsyncGenerator[Any, None]:
        job_input = job.get("input") or {}
        if not isinstance(job_input, dict):
            raise InvalidRequest("input: must be an object", param="input")
        if not self._engine.alive:
            self.drain.begin(failed=True)
        try:
            if is_interactive(job_input):
                # Never beside a shard that must be alone: its death would say nothing then.
                await self._room.enter(alone=False)
                try:
                    if self.drain.begun:
                        raise WorkerLeaving("this worker is leaving; send the call again")
                    async with aclosing(chunks(self._engine, self._card, job_input)) as answer:
                        async for chunk in answer:
                            yield chunk
                finally:
                    self._room.leave()
            else:
                shard_input = parse(ShardInput, job_input)
                worker = await self._connected()
                if self.drain.begun:
                    yield await worker.decline(shard_input)
                else:
                    yield await worker.run(str(job["id"]), shard_input)
        except EngineDead:
            self.drain.begin(failed=True)
            raise

    async def _connected(self) -> Worker:
        ready = self._ready
        if ready is None:
            ready = self._ready = asyncio.get_running_loop().create_task(self._connect())
        try:
            return await asyncio.shield(ready)
        except Exception:
            # Another job may have begun anew meanwhile: two workers would know nothing of each other's shards.
            if self._ready is ready:
                self._ready = None
            raise

    async def _connect(self) -> Worker:
        service = build_service(self._settings)
        await service.queue.publish_capacity(service.endpoints[self._card.name], self._concurrency)
        self._worker = service.worker(self._card.name, self._engine, self._room)
        return self._worker

    def _feeding(self) -> Sequence[object]:
        """A shard that is claimed but not submitted yet would wait until its claim runs out."""
        return self._worker.feeder.under_way() if self._worker is not None else ()

    def _give_back(self) -> None:
        if self._worker is not None:
            self._worker.give_back()


def start(card: ModelCard) -> None:
    """Load the model, then run the SDK's worker until it ends: no job is taken before the engine can run it."""
    settings = read_settings()
    tuned = settings.cards[card.name]
    engine = configured(lambda: build_engine(settings, tuned))
    try:
        engine.start()
    except EngineDead as error:
        sys.stderr.write(f"The engine did not start: {error.message}\n")
        sys.exit(1)
    concurrency = tuned.concurrency(engine.slots, engine.request_s)
    handler = Handler(tuned, settings, engine, concurrency)
    try:
        serve_stream(handler.work, concurrency, handler.drain)
    finally:
        engine.close()
