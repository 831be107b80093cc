"""Webhooks that are late, out of order, empty, too large or forged by the platform's side: hints, and nothing else."""

import pytest

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import count_fired, eventually, faults
from tests.flow.fault_runs import begun_again, run_under

REQUESTS = make_requests(200)
SHARDS = 8
MANY = make_requests(800)


@pytest.mark.parametrize("fault", ["empty_webhook", "oversize_webhook"])
async def test_a_webhook_that_is_not_as_it_should_be_costs_nothing(
    client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    cost = await run_under(client, cloud_redis, REQUESTS, **{fault: 1})
    assert (cost.begun_again, cost.blamed) == (0, 0)


async def test_forged_webhooks_beside_the_real_ones_cost_nothing(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    # Two batches, so that a forged body can be about the other one while that runs.
    other = (await client.call("create", stage="email", requests=MANY))["id"]
    cost = await run_under(client, cloud_redis, MANY, forge_webhook=1)
    assert (cost.begun_again, cost.blamed) == (0, 0)
    last = await client.wait(other)
    assert (last["counts"]["succeeded"], last["lost_attempts"]) == (len(MANY), 0)
    assert await begun_again(cloud_redis, other) == 0


async def test_webhooks_hours_late_and_in_reverse_order_change_nothing_of_an_ended_batch(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    cost = await run_under(client, cloud_redis, REQUESTS, hold_webhook=1)
    assert (cost.begun_again, cost.blamed) == (0, 0)
    ended = await client.call("status", id=cost.batch_id)
    lines = await client.lines(cost.batch_id)
    assert await release(client) >= cost.fired
    await eventually(lambda: all_read(client, cloud_redis), "the late webhooks are read")
    assert await client.call("status", id=cost.batch_id) == ended
    assert await client.lines(cost.batch_id) == lines


async def test_late_webhooks_of_one_batch_disturb_no_other_that_runs(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    before = await count_fired(client, "hold_webhook")
    async with faults(client, hold_webhook=1):
        first = (await client.call("create", stage="email", requests=REQUESTS))["id"]
        await client.wait(first)

        async def held() -> bool:
            return await count_fired(client, "hold_webhook") - before >= SHARDS

        await eventually(held, "the webhooks of the first batch are held back")
    second = (await client.call("create", stage="email", requests=MANY))["id"]
    assert await release(client) >= SHARDS
    last = await client.wait(second)
    assert (last["counts"]["succeeded"], last["lost_attempts"]) == (len(MANY), 0)
    assert await begun_again(cloud_redis, second) == 0


async def test_webhooks_that_come_after_the_delete_bring_nothing_back(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    cost = await run_under(client, cloud_redis, REQUESTS, hold_webhook=1)
    await client.call("delete", id=cost.batch_id)
    assert await release(client) >= cost.fired
    await eventually(lambda: all_read(client, cloud_redis), "the late webhooks are read")
    with pytest.raises(OperationFailed, match=r"^404 not_found_error"):
        await client.call("status", id=cost.batch_id)
    assert await cloud_redis.execute("EXISTS", keys.batch(cost.batch_id), keys.shards(cost.batch_id)) == 0


async def release(client: BatchClient) -> int:
    """Sends what was held back, the last one first; the number of them."""
    return int((await client.control("/webhooks/release", {}))["released"])


async def all_read(client: BatchClient, redis: Upstash) -> bool:
    await client.call("reconcile")
    return not await redis.execute("EXISTS", *keys.INBOXES)
