"""One idempotency key, one batch: repeated, raced, or with another body."""

import asyncio

import pytest

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import keys_in, records_of
from tests.flow.expected import assert_all_succeeded

REQUESTS = make_requests(12)


async def test_a_second_create_with_the_same_key_gives_the_same_batch(client: BatchClient) -> None:
    first = await client.call("create", stage="email", requests=REQUESTS, idempotency_key="twice")
    again = await client.call("create", requests=REQUESTS, idempotency_key="twice", stage="email")
    await client.wait(first["id"])
    after_the_end = await client.call("create", stage="email", requests=REQUESTS, idempotency_key="twice")
    assert first == again == after_the_end
    assert_all_succeeded(await client.lines(first["id"]), REQUESTS)


async def test_a_key_used_before_with_another_body_is_a_conflict(client: BatchClient) -> None:
    first = await client.call("create", stage="email", requests=REQUESTS, idempotency_key="other-body")
    for other in (
        {"stage": "subject", "requests": REQUESTS},
        {"stage": "email", "requests": REQUESTS[:-1]},
        {"stage": "email", "requests": REQUESTS[::-1]},
        {"stage": "email", "requests": REQUESTS, "priority": "high"},
    ):
        with pytest.raises(OperationFailed, match=r"^409 conflict_error: idempotency_key") as failure:
            await client.call("create", **other, idempotency_key="other-body")
        assert failure.value.param == "idempotency_key"
    await client.wait(first["id"])


async def test_twenty_creates_at_once_with_one_key_make_one_batch(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    before = await keys_in(cloud_redis, "batch:*")
    created = await asyncio.gather(
        *(client.call("create", stage="email", requests=REQUESTS, idempotency_key="raced") for _ in range(20))
    )
    assert len({batch["id"] for batch in created}) == 1
    await client.wait(created[0]["id"])
    made = await keys_in(cloud_redis, "batch:*") - before
    assert made == records_of(created[0]["id"])
    assert_all_succeeded(await client.lines(created[0]["id"]), REQUESTS)


async def test_creates_without_a_key_make_a_batch_each(client: BatchClient) -> None:
    created = [(await client.call("create", stage="email", requests=REQUESTS))["id"] for _ in range(2)]
    assert created[0] != created[1]
    for batch_id in created:
        await client.wait(batch_id)
