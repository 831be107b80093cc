"""Puts a process together from its settings: the one place that knows which adapter stands behind which port."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from shared.adapters import keys
from shared.adapters.payloads import TieredPayloads
from shared.adapters.redis_batches import RedisBatches
from shared.adapters.redis_monitor import RedisMonitor
from shared.adapters.redis_shards import RedisQueue, RedisRepairs, RedisRuns, Timing
from shared.adapters.redis_uploads import RedisUploads
from shared.adapters.runpod_api import RunpodApi
from shared.adapters.s3 import S3
from shared.adapters.upstash import Upstash
from shared.config import Settings
from shared.core.repair import Patience
from shared.core.routing import Router
from shared.flow.caretaker import Caretaker
from shared.flow.feeder import Feeder
from shared.flow.observe import Observer
from shared.flow.operations import Operations
from shared.flow.results import Results
from shared.flow.room import Room
from shared.flow.running import RunningShards
from shared.flow.submission import Limits, Submitter
from shared.flow.uploads import Uploader
from shared.flow.worker import Worker
from shared.ports.engine import Engine
from shared.ports.state import Endpoint


@dataclass(frozen=True)
class Service:
    """What every process has: the adapters and those who keep everybody's batches moving."""

    settings: Settings
    limits: Limits
    endpoints: dict[str, Endpoint]
    redis: Upstash
    runpod: RunpodApi
    payloads: TieredPayloads
    batches: RedisBatches
    queue: RedisQueue
    runs: RedisRuns
    repairs: RedisRepairs
    feeder: Feeder
    caretaker: Caretaker

    def operations(self) -> Operations:
        settings, limits, endpoints = self.settings, self.limits, list(self.endpoints.values())
        router = Router(list(settings.cards.values()), settings.stages)
        submitter = Submitter(self.batches, self.payloads, router, limits, settings.stage_schemas)
        uploads = RedisUploads(self.redis, limits.max_requests, limits.max_batch_bytes, limits.upload_ms)
        return Operations(
            self.batches,
            self.payloads,
            submitter,
            Uploader(uploads, self.batches, self.payloads, submitter, limits),
            Results(self.batches, self.payloads, settings.page_bytes),
            self.feeder,
            self.caretaker,
            Observer(RedisMonitor(self.redis, endpoints), self.payloads, self.runpod, endpoints),
        )

    def worker(self, model: str, engine: Engine, room: Room) -> Worker:
        endpoint = self.endpoints[model]
        return Worker(
            # A process that died is counted once; its successor may have the same name.
            name=f"{self.settings.worker_name}:{secrets.token_hex(4)}",
            endpoint=endpoint,
            engine=engine,
            room=room,
            runs=self.runs,
            repairs=self.repairs,
            payloads=self.payloads,
            feeder=self.feeder,
            running=RunningShards(self.runs, endpoint, self.caretaker.tick, self.settings.beat_s),
        )

    async def close(self) -> None:
        await self.redis.close()
        await self.runpod.close()


def build_service(settings: Settings, clock_offset_ms: Callable[[], int] = lambda: 0) -> Service:
    """Nothing is connected yet. Call inside a running event loop."""
    endpoints = {
        model: Endpoint(id=url.rpartition("/")[2], url=url, model=model)
        for model, url in settings.base_urls.items()
    }
    redis = Upstash(settings.redis_url, settings.redis_token.get_secret_value(), clock_offset_ms)
    runpod = RunpodApi(settings.runpod_api_key)
    storage = S3(settings.s3) if settings.s3 else None
    payloads = TieredPayloads(redis, storage, settings.inline_bytes)
    timing = Timing(
        claim_ms=_ms(settings.claim_s),
        lease_ms=_ms(settings.lease_s),
        stale_ms=_ms(settings.beat_stale_s),
        max_deaths=settings.max_deaths,
    )
    batches = RedisBatches(redis, list(endpoints.values()), _ms(settings.tick_s))
    queue, runs, repairs = RedisQueue(redis, timing), RedisRuns(redis, timing), RedisRepairs(redis, timing)
    feeder = Feeder(queue, repairs, runpod, endpoints, settings.cards, _webhook_url(settings))
    patience = Patience(
        claim_ms=timing.claim_ms,
        beat_stale_ms=timing.stale_ms,
        gone_grace_ms=_ms(settings.gone_grace_s),
        recheck_ms=timing.lease_ms,
        storage_ms=10 * timing.stale_ms,
    )
    caretaker = Caretaker(
        batches, repairs, runs, runpod, payloads, feeder, settings.cards, endpoints, patience
    )
    limits = Limits(
        max_requests=settings.max_requests,
        max_batch_bytes=settings.max_batch_bytes,
        expires_in_ms=_ms(settings.expires_in_s),
        retain_ms=_ms(settings.retain_s),
    )
    return Service(
        settings, limits, endpoints, redis, runpod, payloads, batches, queue, runs, repairs, feeder, caretaker
    )


def _webhook_url(settings: Settings) -> Callable[[str], str | None]:
    """RunPod posts a job's end straight into a list in Redis, with a token that may do nothing else."""
    token = settings.webhook_token
    if token is None:
        return lambda batch_id: None
    secret = token.get_secret_value()
    return lambda batch_id: f"{settings.redis_url}/rpush/{keys.inbox(batch_id)}?_token={secret}"


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
