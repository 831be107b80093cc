"""A local cloud for flow tests: tuned so that every repair takes moments, with what only its workers know."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import aiohttp
import boto3
import psutil

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, batch_client
from tests.local_cloud.command import local_cloud_process

T = TypeVar("T")

# At 16 jobs of 32 requests a worker's engine is busy, and a batch of 1,000 takes some seconds: time to meddle with it.
JOBS_AT_ONCE = 16
SHARD_REQUESTS = 32
FAST = {
    "BEAT_S": "0.3",
    "BEAT_STALE_S": "1",
    "LEASE_S": "0.5",
    "CLAIM_S": "1",
    "GONE_GRACE_S": "1",
    "TICK_S": "0.2",
    "SIM_TTFT_MS": "10",
    "SIM_TPOT_MS": "1",
    "SIM_SLOTS": "32",
    "WORKER_CONCURRENCY": str(JOBS_AT_ONCE),
    "MISTRAL_SHARD_REQUESTS": str(SHARD_REQUESTS),
    "LLAMA_SHARD_REQUESTS": str(SHARD_REQUESTS),
    "LOG_LEVEL": "DEBUG",
    "RUNPOD_DEBUG_LEVEL": "DEBUG",
}
CALLBACK_SECRET = "whsec_bG9jYWwgY2xvdWQncyBvd24gc2VjcmV0IQ=="
# What the answers of the stage "facts" look like.
FACTS = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/fact"}, "minItems": 1}},
    "required": ["items"],
    "$defs": {
        "fact": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


@dataclass(frozen=True, slots=True)
class FlowCloud:
    """Addresses as `./build.sh local` prints them; `worker_env` is the environment of a worker."""

    address: Mapping[str, str]
    worker_env: Mapping[str, str]

    @property
    def webhook_token(self) -> str:
        return self.worker_env["WEBHOOK_TOKEN"]

    def logs(self, name: str = "*") -> str:
        paths = sorted(Path(self.address["log_dir"]).glob(f"{name}.log"))
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)

    def stored_objects(self) -> set[str]:
        """The keys of all objects in S3."""
        env = self.worker_env
        client = boto3.client(
            "s3",
            endpoint_url=env["S3_ENDPOINT_URL"],
            region_name=env["S3_REGION"],
            aws_access_key_id=env["S3_ACCESS_KEY_ID"],
            aws_secret_access_key=env["S3_SECRET_ACCESS_KEY"],
        )
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=env["S3_BUCKET"])
        return {item["Key"] for page in pages for item in page.get("Contents", [])}


@asynccontextmanager
async def flow_cloud(log_dir: Path, **env: str) -> AsyncIterator[FlowCloud]:
    """A cloud in a process of its own, so that it outlives the event loop of a test."""
    async with local_cloud_process({**FAST, "LOCAL_LOG_DIR": str(log_dir), **env}) as process:
        address = {name: process.text(name) for name in process.description}
        url = f"{address['control_url']}/workers"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            [worker, *_] = (await answer.json())["batch-api"]
        yield FlowCloud(address, psutil.Process(worker["pid"]).environ())


@asynccontextmanager
async def connected(cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    address = cloud.address
    async with batch_client(address["batch_url"], address["api_key"], address["control_url"]) as client:
        yield client


@asynccontextmanager
async def faults(client: BatchClient, **values: Any) -> AsyncIterator[None]:
    """Faults of the platform while the block runs: each at a rate, or `{"times": n}`."""
    await client.control("/faults", values)
    try:
        yield
    finally:
        await client.control("/faults", dict.fromkeys(values, 0))


async def count_fired(client: BatchClient, fault: str) -> int:
    """How often a fault happened so far."""
    return int((await client.control("/faults"))[fault]["fired"])


async def eventually(look: Callable[[], Awaitable[T]], claim: str, timeout_s: float = 20.0) -> T:
    """The first result that is true; fails with the claim when the time is over."""
    end_s = monotonic() + timeout_s
    while True:
        if found := await look():
            return found
        assert monotonic() < end_s, f"not within {timeout_s:g} s: {claim}"
        await asyncio.sleep(0.02)


async def keys_in(redis: Upstash, pattern: str = "*") -> set[str]:
    found: set[str] = set()
    cursor = "0"
    while True:
        cursor, keys = await redis.execute("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        found.update(keys)
        if str(cursor) == "0":
            return found


def records_of(batch_id: str) -> set[str]:
    """The keys of a batch's records in Redis, once a shard was handed out."""
    return {f"batch:{batch_id}{part}" for part in ("", ":plan", ":shards")}


async def count_jobs(client: BatchClient, endpoint: str, *states: str) -> int:
    jobs: Mapping[str, int] = (await client.control("/stats"))["jobs"][endpoint]
    return sum(jobs[state] for state in states)


async def count_runs(client: BatchClient, endpoint: str) -> int:
    """How many jobs were submitted to an endpoint so far."""
    calls: Mapping[str, int] = (await client.control("/stats"))["runpod"][endpoint]
    return calls.get("run", 0)


async def wait_for_worker(client: BatchClient, endpoint: str, timeout_s: float = 20.0) -> dict[str, Any]:
    """The first worker of an endpoint that runs: `{worker_id, pid, jobs, state}`."""

    async def ready() -> dict[str, Any] | None:
        workers: list[dict[str, Any]] = (await client.control("/workers"))[endpoint]
        return next((worker for worker in workers if worker["state"] == "ready"), None)

    worker = await eventually(ready, f"a worker of {endpoint} is ready", timeout_s)
    assert worker is not None
    return worker
