"""A batch under faults that are named: it ends with one right line per request, and what it cost is counted."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shared.adapters.upstash import Upstash
from tests.client import BatchClient
from tests.flow.cloud import FlowCloud, count_fired, eventually, faults
from tests.flow.expected import assert_all_succeeded, counts, watch


@dataclass(frozen=True, slots=True)
class Cost:
    """`fired`: how often the faults happened. `begun_again`: starts of shards beyond the first of each. `blamed`: lost
    attempts, as the batch tells them."""

    batch_id: str
    fired: int
    begun_again: int
    blamed: int


async def run_under(
    client: BatchClient, redis: Upstash, requests: Sequence[dict[str, Any]], **values: object
) -> Cost:
    """Runs a batch from its create to its end under faults, which must have happened."""
    before = {name: await count_fired(client, name) for name in values}
    async with faults(client, **values):
        batch_id = (await client.call("create", stage="email", requests=requests))["id"]
        last = (await watch(client, batch_id))[-1]
    fired = {name: await count_fired(client, name) - count for name, count in before.items()}
    assert all(fired.values()), fired
    assert last["counts"] == counts(len(requests), len(requests))
    assert_all_succeeded(await client.lines(batch_id), requests)
    return Cost(batch_id, sum(fired.values()), await begun_again(redis, batch_id), last["lost_attempts"])


async def begun_again(redis: Upstash, batch_id: str) -> int:
    """Starts of a batch's shards beyond the first of each: each start mints an epoch."""
    shards = [json.loads(text) for text in await redis.execute("HVALS", f"batch:{batch_id}:shards")]
    return sum(max(0, shard["epoch"] - 1) for shard in shards)


@asynccontextmanager
async def two_workers(client: BatchClient, endpoint: str) -> AsyncIterator[None]:
    """A second worker of an endpoint while the block runs."""

    async def scale(count: int) -> None:
        await client.control("/workers", {"endpoint": endpoint, "count": count})

        async def scaled() -> bool:
            workers: list[dict[str, Any]] = (await client.control("/workers"))[endpoint]
            return bool(sum(worker["state"] == "ready" for worker in workers) == count)

        await eventually(scaled, f"{endpoint} has {count} workers", timeout_s=40)

    await scale(2)
    try:
        yield
    finally:
        await scale(1)


async def cancel_what_seems_to_run(cloud: FlowCloud, client: BatchClient) -> int:
    """Cancels the jobs for mistral that the platform believes to run, as it would at their timeout; their number."""
    url = cloud.worker_env["MISTRAL_BASE_URL"]
    async with client.session.get(f"{url}/requests") as answer:
        jobs = (await answer.json())["requests"]
    live = [job["id"] for job in jobs if job["status"] in ("IN_QUEUE", "IN_PROGRESS")]
    for job_id in live:
        async with client.session.post(f"{url}/cancel/{job_id}") as answer:
            await answer.read()
    return len(live)
