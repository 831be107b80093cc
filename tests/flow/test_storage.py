"""Large payloads in S3, pages cut by bytes, deletion, and the life of every key."""

from typing import Any

import pytest

from handlers.catalog import CARDS
from shared.adapters.keys import INBOXES
from shared.adapters.upstash import Upstash
from shared.config import load_settings
from shared.wiring import build_service
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import FlowCloud, eventually, keys_in, records_of
from tests.flow.expected import assert_all_succeeded, watch

DAY_MS = 24 * 3600 * 1000


def half_and_half(count: int) -> list[dict[str, Any]]:
    requests = make_requests(count, "Write " + "a long letter " * 20 + "to lead {n}.")
    for number, request in enumerate(requests):
        request["metadata"] = {"model_hint": ("mistral", "llama-70b")[number % 2]}
    return requests


@pytest.fixture
def objects_before(small_cloud: FlowCloud) -> set[str]:
    return small_cloud.stored_objects()


async def test_payloads_past_the_threshold_are_in_s3_and_come_back_whole(
    small_cloud: FlowCloud, small_client: BatchClient, objects_before: set[str]
) -> None:
    requests = half_and_half(60)
    batch_id = (await small_client.call("create", stage="email", requests=requests))["id"]
    await watch(small_client, batch_id)
    assert_all_succeeded(await small_client.lines(batch_id), requests)
    made = small_cloud.stored_objects() - objects_before
    shards = 60 // 2 // 8 + 1
    kinds = sorted(key.split("/")[2] for key in made)
    assert kinds.count("in") == kinds.count("out") == 2 * shards
    assert len({key.split("/")[1] for key in made}) == 1, "one folder a batch"


async def test_a_deleted_batch_leaves_nothing_but_a_note_and_its_idempotency_key(
    small_cloud: FlowCloud, small_client: BatchClient, objects_before: set[str]
) -> None:
    redis = Upstash(small_cloud.address["redis_url"], small_cloud.address["redis_token"])
    keys_before = await keys_in(redis)
    batch = {"stage": "email", "requests": half_and_half(30), "idempotency_key": "deleted-with-all-payloads"}
    batch_id = (await small_client.call("create", **batch))["id"]
    await small_client.wait(batch_id)
    assert small_cloud.stored_objects() > objects_before
    answers = [await small_client.call("delete", id=batch_id) for _ in range(2)]
    assert answers == [{"id": batch_id, "deleted": True}] * 2
    assert small_cloud.stored_objects() == objects_before
    left = await keys_in(redis) - keys_before
    of_batches = {key for key in left if key.partition(":")[0] in ("batch", "payload", "idem", "deleted")}
    assert of_batches == {f"deleted:{batch_id}", "idem:deleted-with-all-payloads"}
    assert batch_id not in await redis.execute("ZRANGE", "batches", 0, -1)
    await redis.close()
    for operation in ("status", "results", "cancel"):
        with pytest.raises(OperationFailed, match=f"^404 not_found_error: Batch {batch_id} not found"):
            await small_client.call(operation, id=batch_id)
    assert await small_client.call("create", **batch) == {"id": batch_id}, "a key outlives its batch"


async def test_a_delete_after_lost_workers_leaves_nothing_of_what_they_stored(
    small_cloud: FlowCloud, small_client: BatchClient, objects_before: set[str]
) -> None:
    requests = half_and_half(60)
    # Its worker dies on it each time, with whatever its other shards have stored by then.
    requests[20]["params"]["messages"][0]["content"] += " [[kill]]"
    batch_id = (await small_client.call("create", stage="email", requests=requests))["id"]
    last = (await watch(small_client, batch_id))[-1]
    assert last["lost_attempts"] > 1
    assert small_cloud.stored_objects() > objects_before
    await small_client.call("delete", id=batch_id)
    assert small_cloud.stored_objects() == objects_before
    redis = Upstash(small_cloud.address["redis_url"], small_cloud.address["redis_token"])
    assert await keys_in(redis, f"*{batch_id}*") == {f"deleted:{batch_id}"}
    await redis.close()


async def test_pages_cut_by_bytes_give_the_same_lines_as_one_page(
    small_cloud: FlowCloud, small_client: BatchClient
) -> None:
    requests = half_and_half(31)
    batch_id = (await small_client.call("create", stage="email", requests=requests))["id"]
    await small_client.wait(batch_id)
    pages: list[dict[str, Any]] = []
    token: dict[str, Any] = {}
    while not pages or pages[-1]["next_page"] is not None:
        pages.append(await small_client.call("results", id=batch_id, **token))
        token = {"page": pages[-1]["next_page"]}
    assert len(pages) > 5
    assert all(page["results"] for page in pages)
    paged = [line for page in pages for line in page["results"]]
    assert_all_succeeded(paged, requests)
    assert paged == await one_page(small_cloud, batch_id)


async def one_page(cloud: FlowCloud, batch_id: str) -> list[dict[str, Any]]:
    """All lines at once, read beside the workers from the same state with the default page size."""
    env = {**cloud.worker_env, "RESULTS_PAGE_BYTES": ""}
    service = build_service(load_settings(env, CARDS))
    page = await service.operations().handle({"operation": "results", "id": batch_id})
    await service.close()
    assert page["next_page"] is None
    lines: list[dict[str, Any]] = page["results"]
    return lines


async def test_after_a_run_every_key_in_redis_expires(client: BatchClient, cloud_redis: Upstash) -> None:
    created = await client.call(
        "create", stage="email", requests=half_and_half(60), idempotency_key="expiring"
    )
    await client.wait(created["id"])

    async def lives() -> dict[str, int]:
        """Milliseconds left of each key, once no key is without. The platform pushes webhooks for a moment after the
        end, and a list that it makes has no end of life until somebody reads it."""
        await client.call("reconcile")
        keys = sorted(await keys_in(cloud_redis))
        found = dict(zip(keys, await cloud_redis.pipeline([["PTTL", key] for key in keys]), strict=True))
        endless = {key for key, left_ms in found.items() if left_ms == -1}
        assert endless <= set(INBOXES)
        return {} if endless else found

    lives_ms = await eventually(lives, "every key has an end of life")
    assert f"batch:{created['id']}" in lives_ms
    # What belongs to a batch lives until its results may go; nothing lives on for months.
    for key in (*records_of(created["id"]), "idem:expiring"):
        assert 1.9 * DAY_MS < lives_ms[key] <= 2 * DAY_MS, key
    assert max(lives_ms.values()) <= 60 * DAY_MS
