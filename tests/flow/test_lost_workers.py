"""Workers that are killed in the middle: nothing is lost, nothing comes twice."""

import asyncio
import json
import os
import signal
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.client import BatchClient, make_requests
from tests.flow.cloud import JOBS_AT_ONCE, FlowCloud, connected, eventually, wait_for_worker
from tests.flow.expected import assert_all_succeeded, counts, watch

REQUESTS = make_requests(1000)
SOME = REQUESTS[:400]
STAGES = {"mistral": "email", "llama": "polish"}
MODELS = {"mistral": "mistral", "llama": "llama-70b"}


async def kill_worker(client: BatchClient, endpoint: str) -> int:
    """SIGKILL for the endpoint's only worker; its pid."""
    pid = int((await wait_for_worker(client, endpoint))["pid"])
    os.kill(pid, signal.SIGKILL)
    return pid


async def half_done(client: BatchClient, batch_id: str, settled_before: int = 0) -> int:
    """Waits until shards were settled (more than before) while work is left; the settled requests."""

    async def look() -> int:
        status = await client.call("status", id=batch_id)
        assert status["counts"]["pending"], "the batch ended before anything could happen to it"
        succeeded: int = status["settled"]["succeeded"]
        return succeeded if succeeded > settled_before else 0

    return await eventually(look, "some shards are settled", timeout_s=40)


@pytest.mark.parametrize("endpoint", ["mistral", "llama"])
async def test_a_model_worker_killed_midway_costs_no_result_and_doubles_none(
    client: BatchClient, endpoint: str
) -> None:
    batch_id = (await client.call("create", stage=STAGES[endpoint], requests=REQUESTS))["id"]
    await half_done(client, batch_id)
    await kill_worker(client, endpoint)
    statuses = await watch(client, batch_id)
    assert statuses[-1]["counts"] == counts(1000, 1000)
    assert 0 < statuses[-1]["lost_attempts"] <= JOBS_AT_ONCE
    assert_all_succeeded(await client.lines(batch_id), REQUESTS, MODELS[endpoint])


async def test_a_model_worker_killed_twice_in_a_row_costs_no_result_and_doubles_none(
    client: BatchClient,
) -> None:
    batch_id = (await client.call("create", stage="email", requests=REQUESTS))["id"]
    settled = await half_done(client, batch_id)
    first = await kill_worker(client, "mistral")

    async def replaced() -> bool:
        workers = (await client.control("/workers"))["mistral"]
        return any(worker["pid"] != first and worker["jobs"] for worker in workers)

    await eventually(replaced, "another worker has the lost shards")
    await kill_worker(client, "mistral")
    statuses = await watch(client, batch_id)
    assert statuses[-1]["settled"]["succeeded"] == 1000 > settled
    assert_all_succeeded(await client.lines(batch_id), REQUESTS)


async def test_a_batch_worker_killed_while_it_is_polled_costs_no_result(cloud: FlowCloud) -> None:
    async with connected(cloud) as client, connected(cloud) as poller:
        batch_id = (await client.call("create", stage="email", requests=SOME))["id"]
        polling = asyncio.create_task(poll_stubbornly(poller, batch_id))
        await eventually(lambda: holds_a_job(client, "batch-api"), "a call is being answered")
        await kill_worker(client, "batch-api")
        status = await polling
        assert status["counts"] == counts(400, 400)
        assert_all_succeeded(await client.lines(batch_id), SOME)


async def test_a_batch_worker_killed_during_a_create_leaves_one_batch(
    client: BatchClient, cloud: FlowCloud
) -> None:
    async with connected(cloud) as other:
        batch, creating = await create_under_way(client, other)
        await kill_worker(client, "batch-api")
        # Delivered again by the platform, or repeated by its caller: the key makes it the same batch.
        created = await creating
        assert await client.call("create", **batch) == created
    await watch(client, created["id"])
    assert_all_succeeded(await client.lines(created["id"]), SOME)


async def create_under_way(
    client: BatchClient, other: BatchClient
) -> tuple[dict[str, Any], asyncio.Task[dict[str, Any]]]:
    """A create that a worker is busy with. One that was answered before anybody looked is made again as another."""
    while True:
        batch = {"stage": "email", "requests": SOME, "idempotency_key": f"killed-in-create-{uuid4()}"}
        creating = asyncio.create_task(other.call("create", **batch))
        while not creating.done():
            if await holds_a_job(client, "batch-api"):
                return batch, creating
        await client.wait(creating.result()["id"])


async def holds_a_job(client: BatchClient, endpoint: str) -> bool:
    return any(worker["jobs"] for worker in (await client.control("/workers"))[endpoint])


async def poll_stubbornly(client: BatchClient, batch_id: str) -> dict[str, Any]:
    """Polls to the end; a call that got no answer of ours is made again."""
    async with asyncio.timeout(60):
        while True:
            try:
                status = await client.call("status", id=batch_id)
            except (aiohttp.ClientError, json.JSONDecodeError):
                continue
            if status["processing_status"] == "ended":
                return status
