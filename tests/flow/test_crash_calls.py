"""Batch workers that crash in the middle of a call: what the caller finds then, and what a repeat gives."""

import json
from typing import Any
from uuid import uuid4

import pytest

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import FlowCloud
from tests.flow.crashes import PATIENCE_S, armed, finish
from tests.flow.expected import succeeded_line, without_latency
from tests.flow.insistent import delete_whole, nonce_of

REQUESTS = make_requests(12)
# So often the platform delivers a job whose workers die. Then it fails, and its caller is told nothing of ours.
DELIVERIES = 2


async def batches(client: BatchClient) -> set[str]:
    listing = await client.call("list", limit=100)
    return {batch["id"] for batch in listing["batches"]}


async def cancel(client: BatchClient, batch_id: str) -> None:
    """Delivered again, the call may find that the batch has ended of it."""
    try:
        await client.call("cancel", id=batch_id)
    except OperationFailed as error:
        if (error.status, error.type) != (409, "conflict_error"):
            raise


def create_fields() -> dict[str, Any]:
    return {"stage": "email", "requests": REQUESTS, "idempotency_key": f"crash-{uuid4()}"}


async def test_a_create_that_crashed_before_its_commit_made_no_batch_and_its_key_makes_one_later(
    crash_client: BatchClient,
) -> None:
    before, wanted = await batches(crash_client), create_fields()
    async with armed(crash_client, "kill_before_commit", times=DELIVERIES):
        with pytest.raises(json.JSONDecodeError):
            await crash_client.call("create", **wanted)
        assert await batches(crash_client) == before
    batch_id = (await crash_client.call("create", **wanted))["id"]
    assert await batches(crash_client) == before | {batch_id}
    await finish(crash_client, batch_id, REQUESTS)


async def test_a_create_that_crashed_after_its_commit_made_the_batch_that_its_key_gives(
    crash_client: BatchClient,
) -> None:
    before, wanted = await batches(crash_client), create_fields()
    async with armed(crash_client, "kill_after_commit"):
        created = await crash_client.call("create", **wanted)
    assert await crash_client.call("create", **wanted) == created
    assert await batches(crash_client) == before | {created["id"]}
    await finish(crash_client, created["id"], REQUESTS)


@pytest.mark.parametrize("failpoint", ["kill_mid_delete", "kill_late_delete"])
async def test_a_delete_that_crashed_hides_the_batch_and_the_next_delete_finishes_it(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash, failpoint: str
) -> None:
    batch_id = (await crash_client.call("create", **create_fields()))["id"]
    await crash_client.wait(batch_id, timeout_s=PATIENCE_S)
    nonce = await nonce_of(crash_redis, batch_id)
    async with armed(crash_client, failpoint, times=DELIVERIES):
        with pytest.raises(json.JSONDecodeError):
            await crash_client.call("delete", id=batch_id)
    with pytest.raises(OperationFailed, match=r"^404 "):
        await crash_client.call("status", id=batch_id)
    await delete_whole(crash_cloud, crash_client, crash_redis, batch_id, nonce)


async def test_a_delete_that_crashed_at_its_end_is_answered_and_left_nothing(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash
) -> None:
    batch_id = (await crash_client.call("create", **create_fields()))["id"]
    await crash_client.wait(batch_id, timeout_s=PATIENCE_S)
    nonce = await nonce_of(crash_redis, batch_id)
    async with armed(crash_client, "kill_after_delete"):
        assert await crash_client.call("delete", id=batch_id) == {"id": batch_id, "deleted": True}
    await delete_whole(crash_cloud, crash_client, crash_redis, batch_id, nonce)


async def test_a_cancel_that_crashed_stops_the_batch_and_every_request_has_one_line(
    crash_client: BatchClient,
) -> None:
    requests = make_requests(64)
    # It does not end by itself.
    requests[40]["params"]["messages"][0]["content"] += " [[stall]]"
    batch_id = (await crash_client.call("create", stage="email", requests=requests))["id"]
    async with armed(crash_client, "kill_after_stop"):
        await cancel(crash_client, batch_id)
    assert (await crash_client.call("status", id=batch_id))["cancel_requested_at"]
    last = await crash_client.wait(batch_id, timeout_s=PATIENCE_S)
    assert last["settled"]["succeeded"] + last["settled"]["canceled"] == 64
    assert last["settled"]["canceled"] > 0
    lines = await crash_client.lines(batch_id)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in requests]
    for line, request in zip(lines, requests, strict=True):
        if line["status"] == "succeeded":
            assert without_latency(line) == succeeded_line(request, "mistral")
        else:
            assert (line["status"], line["message"]) == ("canceled", None)
