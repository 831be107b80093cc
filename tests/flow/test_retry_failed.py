"""`retry_failed`: a batch's failed requests as a batch of their own, once however often it is asked for."""

import asyncio
from typing import Any

import pytest

from shared.adapters.upstash import Upstash
from shared.core.structured import schema_format
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import FACTS, FlowCloud, connected, keys_in, records_of
from tests.flow.expected import (
    assert_failed,
    assert_status_shape,
    counts,
    lifetime_s,
    succeeded_line,
    watch,
    without_latency,
)

MODELS = ("llama-70b", "mistral")


def mark(request: dict[str, Any], marker: str) -> None:
    request["params"]["messages"][0]["content"] += f" {marker}"


def mixed_requests() -> list[dict[str, Any]]:
    """For both models in turn. Every fourth fails the first time only, every tenth always."""
    requests = make_requests(60, "Facts of lead {n}.")
    for number, request in enumerate(requests):
        request["metadata"] = {"model_hint": MODELS[number % 2], "lead": number}
        if number % 10 == 0:
            mark(request, "[[error]]")
        elif number % 4 == 1:
            mark(request, "[[invalid-once]]")
    return requests


def with_schema(request: dict[str, Any]) -> dict[str, Any]:
    """The request as the stage `facts` runs it."""
    return {**request, "params": {**request["params"], "response_format": schema_format(FACTS)}}


def marked(request: dict[str, Any], *markers: str) -> bool:
    return any(marker in request["params"]["messages"][0]["content"] for marker in markers)


async def ended(client: BatchClient, requests: list[dict[str, Any]], **fields: Any) -> str:
    batch_id = str((await client.call("create", **{"stage": "email", "requests": requests, **fields}))["id"])
    await client.wait(batch_id)
    return batch_id


async def test_a_retry_runs_what_failed_again_in_order_on_the_same_models_with_the_same_schema(
    client: BatchClient,
) -> None:
    requests = mixed_requests()
    failed = [request for request in requests if marked(request, "[[error]]", "[[invalid-once]]")]
    first = await ended(client, requests, stage="facts", priority="high")
    before = await client.lines(first)

    retry = (await client.call("retry_failed", id=first))["id"]
    last = (await watch(client, retry))[-1]
    assert (last["retry_of"], last["stage"], last["priority"]) == (first, "facts", "high")
    always = sum(marked(request, "[[error]]") for request in failed)
    assert last["counts"] == counts(len(failed), len(failed) - always, always)
    lines = await client.lines(retry)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in failed]
    for line, request in zip(lines, failed, strict=True):
        model = request["metadata"]["model_hint"]
        if marked(request, "[[error]]"):
            assert_failed(line, "errored", "invalid_request_error", model)
        else:
            assert without_latency(line) == succeeded_line(with_schema(request), model)

    assert await client.lines(first) == before, "the first batch stays as it was"
    listed = (await client.call("list", limit=1000))["batches"]
    assert {batch["id"]: batch["retry_of"] for batch in listed if batch["id"] in (first, retry)} == {
        first: None,
        retry: first,
    }


async def test_what_expired_is_retried_and_has_as_long_again(client: BatchClient) -> None:
    requests = make_requests(8)
    mark(requests[2], "[[stall]]")
    other = (await client.call("create", stage="email", requests=make_requests(1)))["id"]
    first = (await client.call("create", stage="email", requests=requests, expires_in_s=10))["id"]
    last = (await watch(client, first))[-1]
    assert lifetime_s(last) == 10
    assert last["ended_at"] >= last["expires_at"]
    lines = await client.lines(first)
    expired = [line["custom_id"] for line in lines if line["status"] == "expired"]
    assert expired == [requests[2]["custom_id"]], "what was done is kept"
    assert last["counts"] == counts(8, 8 - len(expired), expired=len(expired))
    assert lifetime_s(await client.wait(other)) == 24 * 3600

    retry = (await client.call("retry_failed", id=first))["id"]
    status = await client.call("cancel", id=retry)
    assert_status_shape(status)
    assert (lifetime_s(status), status["retry_of"]) == (10, first)
    await watch(client, retry)
    assert [line["custom_id"] for line in await client.lines(retry)] == expired
    with pytest.raises(
        OperationFailed, match=r"^400 invalid_request_error: id: no request of .* errored or expired"
    ):
        await client.call("retry_failed", id=retry)


async def test_ten_retries_at_once_make_one_batch(
    client: BatchClient, cloud_redis: Upstash, cloud: FlowCloud
) -> None:
    requests = make_requests(12)
    for request in requests[::3]:
        mark(request, "[[error]]")
    first = await ended(client, requests)
    before = await keys_in(cloud_redis, "batch:*")
    async with connected(cloud) as other:
        made = await asyncio.gather(
            *(each.call("retry_failed", id=first) for each in (client, other) for _ in range(5))
        )
    retry = made[0]["id"]
    assert made == [{"id": retry}] * 10
    await client.wait(retry)
    assert await keys_in(cloud_redis, "batch:*") - before == records_of(retry)
    assert await client.call("retry_failed", id=first) == {"id": retry}, "also after its end"
    assert [line["custom_id"] for line in await client.lines(retry)] == [
        request["custom_id"] for request in requests[::3]
    ]


async def test_a_retry_before_the_end_without_failures_or_after_a_delete_is_refused(
    client: BatchClient,
) -> None:
    stalled = make_requests(2)
    mark(stalled[0], "[[stall]]")
    running = (await client.call("create", stage="email", requests=stalled))["id"]
    with pytest.raises(OperationFailed, match=r"^400 batch_not_ended: Batch not yet complete$"):
        await client.call("retry_failed", id=running)
    await client.call("cancel", id=running)
    await client.wait(running)

    fine = await ended(client, make_requests(2))
    with pytest.raises(OperationFailed, match=r"^400 invalid_request_error: ") as refused:
        await client.call("retry_failed", id=fine)
    assert refused.value.param == "id"

    failing = make_requests(2)
    mark(failing[1], "[[error]]")
    first = await ended(client, failing)
    retry = (await client.call("retry_failed", id=first))["id"]
    await client.wait(retry)
    await client.call("delete", id=first)
    with pytest.raises(OperationFailed, match=f"^404 not_found_error: Batch {first} not found"):
        await client.call("retry_failed", id=first)
    assert [line["custom_id"] for line in await client.lines(retry)] == [failing[1]["custom_id"]]
