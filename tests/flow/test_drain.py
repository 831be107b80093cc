"""Workers that are asked to end, as the platform does when it scales down or rolls out an image."""

from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from tests.client import BatchClient, make_requests
from tests.flow.cloud import connected, eventually, flow_cloud, wait_for_worker
from tests.flow.expected import assert_all_succeeded, counts, watch
from tests.processes import has_ended

REQUESTS = make_requests(96)
LONG_GRACE_S = 60


@pytest_asyncio.fixture
async def client(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[BatchClient]:
    """A cloud with one worker a model, whose requests take the milliseconds and whose grace the seconds of the test."""
    request_ms, grace_s = request.param
    env = {
        "SIM_TTFT_MS": str(request_ms),
        "SIM_TPOT_MS": "0",
        "DRAIN_S": str(grace_s),
        "WORKER_CONCURRENCY": "2",
    }
    async with flow_cloud(tmp_path_factory.mktemp("drain"), **env) as cloud, connected(cloud) as client:
        yield client


async def worker_of(client: BatchClient, batch_id: str) -> psutil.Process:
    """The worker, once it has begun with the batch."""

    async def begun() -> bool:
        return bool((await client.call("status", id=batch_id))["processing_status"] == "processing")

    await eventually(begun, "a shard runs")
    return psutil.Process((await wait_for_worker(client, "mistral"))["pid"])


async def asked_to_end(worker: psutil.Process) -> None:
    """Waits for its end, for a part of the longest grace."""
    worker.terminate()

    async def gone() -> bool:
        return has_ended(worker)

    await eventually(gone, "the worker ended", LONG_GRACE_S / 2)


@pytest.mark.parametrize("client", [(1500, 0.2)], indirect=True)
async def test_what_does_not_finish_within_the_grace_goes_back_without_blame(client: BatchClient) -> None:
    batch_id = (await client.call("create", stage="email", requests=REQUESTS))["id"]
    await asked_to_end(await worker_of(client, batch_id))
    statuses = await watch(client, batch_id)
    assert statuses[-1]["counts"] == counts(96, 96)
    assert statuses[-1]["lost_attempts"] == 0
    assert_all_succeeded(await client.lines(batch_id), REQUESTS)


@pytest.mark.parametrize("client", [(700, LONG_GRACE_S)], indirect=True)
async def test_shards_that_finish_within_the_grace_are_settled_by_the_worker_that_leaves(
    client: BatchClient,
) -> None:
    batch_id = (await client.call("create", stage="email", requests=REQUESTS))["id"]
    await asked_to_end(await worker_of(client, batch_id))
    status = await client.call("status", id=batch_id)
    assert status["settled"]["succeeded"] > 0
    statuses = await watch(client, batch_id)
    assert (statuses[-1]["counts"], statuses[-1]["lost_attempts"]) == (counts(96, 96), 0)
    assert_all_succeeded(await client.lines(batch_id), REQUESTS)


@pytest.mark.parametrize("client", [(10, LONG_GRACE_S)], indirect=True)
async def test_an_idle_worker_waits_for_no_grace(client: BatchClient) -> None:
    await asked_to_end(psutil.Process((await wait_for_worker(client, "batch-api"))["pid"]))
    assert (await client.call("health"))["ready"]
