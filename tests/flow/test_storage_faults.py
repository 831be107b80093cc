"""S3 that refuses, loses or cuts short, while batches run whose payloads all lie there: on a server that checks
signatures."""

import json
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import (
    FlowCloud,
    connected,
    count_fired,
    eventually,
    faults,
    flow_cloud,
    keys_in,
    records_of,
    wait_for_worker,
)
from tests.flow.expected import assert_all_succeeded
from tests.flow.fault_runs import cancel_what_seems_to_run
from tests.flow.insistent import create_and_finish, delete_whole, nonce_of
from tests.local_cloud.s3_faults import EFFECTS

REQUESTS = make_requests(60)
# boto3 waits up to a second before its second try, and the service before a shard's second attempt.
FEW = {"times": 4}
OUTAGES = ["s3_500", "s3_503", "s3_refused", "s3_expired"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def s3_cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FlowCloud]:
    env = {"LOCAL_S3": "rclone", "PAYLOAD_INLINE_BYTES": "256", "LOCAL_WORKERS": "llama=0"}
    async with flow_cloud(tmp_path_factory.mktemp("s3-cloud"), **env) as cloud:
        yield cloud


@pytest_asyncio.fixture
async def s3_client(s3_cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    async with connected(s3_cloud) as client:
        yield client


@pytest_asyncio.fixture
async def s3_redis(s3_cloud: FlowCloud) -> AsyncIterator[Upstash]:
    redis = Upstash(s3_cloud.address["redis_url"], s3_cloud.address["redis_token"])
    yield redis
    await redis.close()


@pytest.mark.parametrize("fault", EFFECTS)
async def test_a_batch_goes_through_a_fault_of_storage_with_one_right_line_for_each_request(
    s3_cloud: FlowCloud, s3_client: BatchClient, s3_redis: Upstash, fault: str
) -> None:
    key = f"through-{fault}"
    fired = await count_fired(s3_client, fault)
    async with faults(s3_client, **{fault: 0}):
        async with faults(s3_client, run_500=1):
            await s3_client.call("create", stage="email", requests=REQUESTS, idempotency_key=key)
            # Its inputs are stored, and no worker has them yet: the fault meets workers.
            await s3_client.control("/faults", {fault: FEW})
        batch_id = await create_and_finish(s3_client, key, REQUESTS)
        assert await count_fired(s3_client, fault) == fired + FEW["times"]
    await delete_whole(s3_cloud, s3_client, s3_redis, batch_id, await nonce_of(s3_redis, batch_id))


@pytest.mark.parametrize("fault", ["s3_500", "s3_503", "s3_timeout_after_write"])
async def test_a_create_does_not_feel_a_passing_fault_of_storage(s3_client: BatchClient, fault: str) -> None:
    fired = await count_fired(s3_client, fault)
    async with faults(s3_client, **{fault: {"times": 2}}):
        await s3_client.call("create", stage="email", requests=REQUESTS, idempotency_key=f"passing-{fault}")
        assert await count_fired(s3_client, fault) == fired + 2
    await create_and_finish(s3_client, f"passing-{fault}", REQUESTS)


@pytest.mark.parametrize("fault", OUTAGES)
async def test_a_create_while_storage_refuses_is_refused_for_now_and_its_key_gives_one_batch_later(
    s3_cloud: FlowCloud, s3_client: BatchClient, s3_redis: Upstash, fault: str
) -> None:
    before = await keys_in(s3_redis, "batch:*")
    batch = {"stage": "email", "requests": REQUESTS, "idempotency_key": f"outage-{fault}"}
    async with faults(s3_client, **{fault: 1}):
        with pytest.raises(OperationFailed, match=r"^503 overloaded_error: storage refused put: "):
            await s3_client.call("create", **batch)
    assert await keys_in(s3_redis, "batch:*") == before
    batch_id = await create_and_finish(s3_client, f"outage-{fault}", REQUESTS)
    assert await keys_in(s3_redis, "batch:*") - before == records_of(batch_id)
    await delete_whole(s3_cloud, s3_client, s3_redis, batch_id, await nonce_of(s3_redis, batch_id))


@pytest.mark.parametrize("fault", ["s3_missing", "s3_refused_output", "s3_expired"])
async def test_results_are_refused_for_now_rather_than_wrong(s3_client: BatchClient, fault: str) -> None:
    batch_id = await create_and_finish(s3_client, f"results-{fault}", REQUESTS)
    async with faults(s3_client, **{fault: {"times": 1}}):
        with pytest.raises(OperationFailed, match=r"^503 overloaded_error: "):
            await s3_client.lines(batch_id)
    assert_all_succeeded(await s3_client.lines(batch_id), REQUESTS)


@pytest.mark.parametrize("fault", OUTAGES)
async def test_a_delete_that_storage_refuses_is_carried_on_by_the_next(
    s3_cloud: FlowCloud, s3_client: BatchClient, s3_redis: Upstash, fault: str
) -> None:
    batch_id = await create_and_finish(s3_client, f"delete-{fault}", REQUESTS)
    nonce = await nonce_of(s3_redis, batch_id)
    async with faults(s3_client, **{fault: 1}):
        with pytest.raises(OperationFailed, match=r"^503 overloaded_error: storage refused delete: "):
            await s3_client.call("delete", id=batch_id)
        with pytest.raises(OperationFailed, match=r"^404 not_found_error: "):
            await s3_client.call("results", id=batch_id)
    await delete_whole(s3_cloud, s3_client, s3_redis, batch_id, nonce)


async def test_a_stored_output_that_storage_refuses_for_good_does_not_hold_its_shard(
    s3_cloud: FlowCloud, s3_client: BatchClient, s3_redis: Upstash
) -> None:
    """Its worker froze after it had stored it, and its job is over."""
    batch_id = (await s3_client.call("create", stage="email", requests=make_requests(1, "Write. [[stall]]")))[
        "id"
    ]

    async def attempt(state: str) -> int:
        [text] = await s3_redis.execute("HVALS", f"batch:{batch_id}:shards") or ["{}"]
        shard = json.loads(text)
        return int(shard["attempt"]) if shard.get("state") == state else 0

    assert await eventually(lambda: attempt("running"), "the shard runs") == 1
    output = f"payload:{await nonce_of(s3_redis, batch_id)}:out:0:1"
    await s3_redis.execute("SET", output, f"s3:{output.replace(':', '/')}", "PX", 60_000)
    worker = psutil.Process((await wait_for_worker(s3_client, "mistral"))["pid"])
    fired = await count_fired(s3_client, "s3_refused_output")

    async def run_again() -> bool:
        await s3_client.call("status", id=batch_id)
        return await attempt("submitted") == 2

    worker.suspend()
    try:
        async with faults(s3_client, s3_refused_output=1):
            assert await cancel_what_seems_to_run(s3_cloud, s3_client) == 1
            await eventually(run_again, "the shard is to be run again", timeout_s=60)
            assert await count_fired(s3_client, "s3_refused_output") > fired
    finally:
        worker.kill()
    await s3_client.call("cancel", id=batch_id)
    assert (await s3_client.wait(batch_id))["counts"]["canceled"] == 1
