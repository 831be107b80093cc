"""Redis that refuses, loses, delays or forgets, while batches run: nothing is lost, nothing comes twice."""

import pytest

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import FlowCloud, count_fired, eventually, faults, keys_in, records_of
from tests.flow.insistent import call_once, create_and_finish, delete_whole, nonce_of
from tests.local_cloud.upstash.faults import EFFECTS

REQUESTS = make_requests(200)
# Enough to be in the middle of it when something happens.
MANY = make_requests(1000)
# A share of all requests, so that the fault meets every step at some time.
RATES = {
    **dict.fromkeys(EFFECTS, 0.2),
    **dict.fromkeys(("redis_refused", "redis_429", "redis_oom", "redis_slow"), 0.1),
}
OUTAGES = [fault for fault in EFFECTS if fault not in ("redis_slow", "redis_noscript")]


@pytest.mark.parametrize("fault", EFFECTS)
async def test_a_batch_goes_through_a_fault_of_redis_with_one_right_line_for_each_request(
    cloud: FlowCloud, client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    fired = await count_fired(client, fault)
    async with faults(client, **{fault: RATES[fault]}):
        batch_id = await create_and_finish(client, f"through-{fault}", REQUESTS)
    assert await count_fired(client, fault) > fired
    await delete_whole(cloud, client, cloud_redis, batch_id, await nonce_of(cloud_redis, batch_id))


@pytest.mark.parametrize("fault", OUTAGES)
async def test_a_create_during_an_outage_is_refused_for_now_and_its_key_gives_one_batch_later(
    cloud: FlowCloud, client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    before = await keys_in(cloud_redis, "batch:*")
    key = f"outage-{fault}"
    async with faults(client, **{fault: 1}):
        for _ in range(2):
            with pytest.raises(OperationFailed, match=r"^503 overloaded_error: ") as refused:
                await client.call("create", stage="email", requests=REQUESTS, idempotency_key=key)
            assert refused.value.body["request_id"]
    batch_id = await create_and_finish(client, key, REQUESTS)
    made = await keys_in(cloud_redis, "batch:*") - before
    assert made == records_of(batch_id)
    await delete_whole(cloud, client, cloud_redis, batch_id, await nonce_of(cloud_redis, batch_id))


@pytest.mark.parametrize("fault", ["redis_refused", "redis_502", "redis_timeout_after", "redis_oom"])
async def test_a_batch_that_runs_into_an_outage_goes_on_after_it(
    cloud: FlowCloud, client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    key = f"into-{fault}"
    batch = {"stage": "email", "requests": MANY, "idempotency_key": key}
    batch_id = (await client.call("create", **batch))["id"]
    fired = await count_fired(client, fault)

    async def felt() -> bool:
        await call_once(client, "status", id=batch_id)
        return await count_fired(client, fault) > fired + 30

    async with faults(client, **{fault: 1}):
        await eventually(felt, "the outage is felt by those who run the batch and those who ask for it")
    assert await create_and_finish(client, key, MANY) == batch_id
    await delete_whole(cloud, client, cloud_redis, batch_id, await nonce_of(cloud_redis, batch_id))
