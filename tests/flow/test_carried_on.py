"""A platform that refuses jobs, and a client that went away: anybody's call carries everybody's batches on."""

import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud, count_jobs, count_runs, eventually, faults, wait_for_worker
from tests.flow.expected import assert_all_succeeded, assert_status_shape, watch

REFUSALS = ["run_429", "run_500"]
REQUESTS = make_requests(60)


async def create_refused(client: BatchClient, fault: str) -> str:
    """A batch that was stored while the platform took no job, so that nothing of it runs."""
    runs = await count_runs(client, "mistral")
    async with faults(client, **{fault: 1}):
        batch_id: str = (await client.call("create", stage="email", requests=REQUESTS))["id"]

        async def refused() -> bool:
            # The endpoint may still rest from an earlier refusal: a poll tries once that is over.
            status = await client.call("status", id=batch_id)
            assert_status_shape(status)
            assert status["processing_status"] == "collected"
            assert status["counts"]["pending"] == len(REQUESTS)
            return await count_runs(client, "mistral") > runs

        await eventually(refused, "a submission is refused")
    assert await count_jobs(client, "mistral", "IN_QUEUE", "IN_PROGRESS") == 0
    return batch_id


@pytest.mark.parametrize("fault", REFUSALS)
async def test_a_batch_created_while_jobs_are_refused_ends_once_they_are_taken(
    client: BatchClient, fault: str
) -> None:
    batch_id = await create_refused(client, fault)
    statuses = await watch(client, batch_id)
    assert statuses[-1]["counts"]["succeeded"] == len(REQUESTS)
    assert statuses[-1]["lost_attempts"] == 0, "a refused submission is nobody's fault"
    assert_all_succeeded(await client.lines(batch_id), REQUESTS)


async def ends_without_its_client(
    redis: Upstash, batch_id: str, anybody: Callable[[], Awaitable[object]], timeout_s: float = 20.0
) -> None:
    """Calls `anybody` until the batch has ended, which is read past the service: looking moves nothing."""

    async def ended() -> bool:
        await anybody()
        return bool(await redis.execute("HGET", f"batch:{batch_id}", "status") == "ended")

    await eventually(ended, "the batch ends without a call of its client", timeout_s)


async def test_a_batch_whose_client_went_away_is_carried_on_by_polls_of_another(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    other = (await client.call("create", stage="email", requests=make_requests(1)))["id"]
    await client.wait(other)
    batch_id = await create_refused(client, "run_429")
    await ends_without_its_client(cloud_redis, batch_id, lambda: client.call("status", id=other))
    assert_all_succeeded(await client.lines(batch_id), REQUESTS)


async def test_a_batch_whose_client_went_away_is_carried_on_by_reconcile_alone(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    batch_id = await create_refused(client, "run_429")
    await ends_without_its_client(cloud_redis, batch_id, lambda: client.call("reconcile"))
    assert_all_succeeded(await client.lines(batch_id), REQUESTS)


async def test_a_batch_whose_every_worker_died_at_once_and_that_nobody_polls_ends_by_reconcile_alone(
    client: BatchClient, cloud_redis: Upstash, cloud: FlowCloud
) -> None:
    requests = make_requests(600)
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]

    async def under_way() -> bool:
        return bool(await cloud_redis.execute("HGET", f"batch:{batch_id}", "status") == "processing")

    await eventually(under_way, "a worker began")
    await lose_every_worker(client, cloud)
    assert await count_jobs(client, "mistral", "IN_QUEUE", "IN_PROGRESS") == 0
    assert await under_way(), "the batch ended before its workers died"
    await ends_without_its_client(cloud_redis, batch_id, lambda: client.call("reconcile"), timeout_s=60)
    assert_all_succeeded(await client.lines(batch_id), requests)
    assert (await client.call("status", id=batch_id))["lost_attempts"] > 0


async def lose_every_worker(client: BatchClient, cloud: FlowCloud) -> None:
    """All workers die at once, and the platform forgets what they held and what waits. Then there are new ones: idle,
    for nothing is at the platform that would wake them."""
    workers = await client.control("/workers")
    for worker in workers["mistral"]:
        # Frozen, so that it does not hear the platform ask it to leave: it gives nothing back.
        os.kill(worker["pid"], signal.SIGSTOP)
    await client.control("/workers", {"endpoint": "mistral", "count": 0})
    for endpoint in workers.values():
        for worker in endpoint:
            os.kill(worker["pid"], signal.SIGKILL)

    async def requeued() -> bool:
        return await count_jobs(client, "mistral", "IN_PROGRESS") == 0

    await eventually(requeued, "the platform has noticed that its workers are gone")
    url = cloud.worker_env["MISTRAL_BASE_URL"]
    async with client.session.post(f"{url}/purge-queue") as answer:
        assert (await answer.json())["removed"] > 0
    await client.control("/workers", {"endpoint": "mistral", "count": 1})
    for name in workers:
        await wait_for_worker(client, name)


async def test_a_batch_whose_client_went_away_ends_by_its_workers_alone(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    # More than the window holds: its shards are handed out by the workers that settle others.
    requests = make_requests(1200)
    for request in requests:
        request["params"]["max_tokens"] = 5
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]

    async def nothing() -> None:
        return

    await ends_without_its_client(cloud_redis, batch_id, nothing)
