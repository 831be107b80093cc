"""A batch in parts: uploaded in any order and side by side, made once, and read back as if it had come in one call."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import FlowCloud, faults, keys_in
from tests.flow.crashes import armed, finish
from tests.flow.expected import assert_all_succeeded, counts, watch
from tests.flow.insistent import delete_whole, nonce_of


def make_mixed(count: int) -> list[dict[str, Any]]:
    """Every third for another model."""
    requests = make_requests(count)
    for request in requests[::3]:
        request["metadata"] = {"model_hint": "llama-70b"}
    return requests


def parts_of(requests: Sequence[dict[str, Any]], *ends: int) -> list[Sequence[dict[str, Any]]]:
    bounds = [0, *ends, len(requests)]
    return [requests[first:last] for first, last in zip(bounds, bounds[1:], strict=False)]


async def upload(client: BatchClient, key: str, number: int, part: Sequence[dict[str, Any]]) -> None:
    answer = await client.call("upload", upload=key, part=number, requests=part, stage="email")
    assert answer == {"upload": key, "part": number, "requests": len(part)}


async def test_parts_uploaded_in_any_order_and_at_once_make_one_batch_with_its_lines_in_request_order(
    client: BatchClient,
) -> None:
    requests, key = make_mixed(200), f"any-order-{uuid4()}"
    parts = parts_of(requests, 90, 91, 150)
    await upload(client, key, 3, parts[3])
    await asyncio.gather(*(upload(client, key, number, parts[number]) for number in (2, 0, 1, 3)))
    calls = [client.call("create", upload=key, parts=4, priority="high") for _ in range(3)]
    [batch_id] = {answer["id"] for answer in await asyncio.gather(*calls)}
    last = (await watch(client, batch_id))[-1]
    assert last["counts"] == counts(200, 200)
    assert last["models"] == {"llama-70b": 67, "mistral": 133}
    assert_all_succeeded(await client.lines(batch_id), requests)


async def test_a_part_whose_reply_was_lost_is_sent_again_and_stored_once(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    requests, key = make_requests(40), f"lost-{uuid4()}"
    first, second = parts_of(requests, 20)
    async with faults(client, redis_timeout_after={"times": 1}):
        await upload(client, key, 0, first)
    await upload(client, key, 1, second)
    stored = await keys_in(cloud_redis, "payload:*")
    await asyncio.gather(upload(client, key, 0, first), upload(client, key, 1, second))
    assert await keys_in(cloud_redis, "payload:*") == stored
    batch_id = (await client.call("create", upload=key, parts=2))["id"]
    await finish(client, batch_id, requests)


async def test_a_create_names_the_part_that_is_missing_and_is_made_once_it_is_there(
    client: BatchClient,
) -> None:
    requests, key = make_requests(30), f"missing-{uuid4()}"
    first, second, third = parts_of(requests, 10, 20)
    await upload(client, key, 0, first)
    await upload(client, key, 2, third)
    with pytest.raises(OperationFailed, match=r"^400 .*parts\[1\]: not uploaded") as caught:
        await client.call("create", upload=key, parts=3)
    assert caught.value.param == "parts[1]"
    await upload(client, key, 1, second)
    await finish(client, (await client.call("create", upload=key, parts=3))["id"], requests)


@pytest.mark.parametrize("failpoint", ["kill_after_reserve", "kill_before_confirm", "kill_after_confirm"])
async def test_a_part_that_crashed_at_any_moment_is_sent_again_and_makes_the_batch_whole(
    crash_client: BatchClient, failpoint: str
) -> None:
    requests, key = make_mixed(24), f"crash-{uuid4()}"
    first, second = parts_of(requests, 12)
    await upload(crash_client, key, 1, second)
    # The platform delivers the call again.
    async with armed(crash_client, failpoint):
        await upload(crash_client, key, 0, first)
    batch_id = (await crash_client.call("create", upload=key, parts=2))["id"]
    await finish(crash_client, batch_id, requests)


async def test_a_create_from_an_upload_that_crashed_after_its_commit_gives_the_batch_it_made(
    crash_client: BatchClient,
) -> None:
    requests, key = make_mixed(24), f"crash-create-{uuid4()}"
    for number, part in enumerate(parts_of(requests, 12)):
        await upload(crash_client, key, number, part)
    async with armed(crash_client, "kill_after_commit"):
        made = await crash_client.call("create", upload=key, parts=2)
    assert await crash_client.call("create", upload=key, parts=2) == made
    await finish(crash_client, made["id"], requests)


@pytest.mark.parametrize("failpoint", ["kill_mid_delete", "kill_late_delete"])
async def test_a_delete_of_a_batch_in_parts_that_crashed_half_way_is_finished_by_the_next(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash, failpoint: str
) -> None:
    requests, key = make_mixed(24), f"crash-delete-{uuid4()}"
    for number, part in enumerate(parts_of(requests, 7, 15)):
        await upload(crash_client, key, number, part)
    batch_id = (await crash_client.call("create", upload=key, parts=3))["id"]
    await finish(crash_client, batch_id, requests)
    nonce = await nonce_of(crash_redis, batch_id)
    async with armed(crash_client, failpoint):
        await crash_client.call("delete", id=batch_id)
    await delete_whole(crash_cloud, crash_client, crash_redis, batch_id, nonce)
