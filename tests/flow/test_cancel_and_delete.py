"""Cancel and delete, in every state of a batch."""

from typing import Any

import pytest

from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import JOBS_AT_ONCE, SHARD_REQUESTS, count_jobs, count_runs, eventually, faults
from tests.flow.expected import (
    assert_failed,
    assert_status_shape,
    counts,
    succeeded_line,
    watch,
    without_latency,
)

SHARDS = 2 * JOBS_AT_ONCE + 3
RUNNING = JOBS_AT_ONCE * (SHARD_REQUESTS - 1)
LLAMA = 20


def stuck_requests() -> list[dict[str, Any]]:
    """Each mistral shard has one request that never ends, so the worker's first shards keep it from all others: some
    run, some wait at the platform, some were never handed out. Beside them some for llama that end."""
    requests = make_requests(SHARDS * SHARD_REQUESTS)
    for number, request in enumerate(requests):
        if number % SHARD_REQUESTS == 0:
            request["params"]["messages"][0]["content"] += " [[stall]]"
    for number, request in enumerate(make_requests(LLAMA, "Polish the letter to lead {n}.")):
        request["custom_id"] = f"lead_{number}_polish"
        requests.insert(number * 50, {**request, "metadata": {"model_hint": "llama-70b"}})
    return requests


async def create_stuck(client: BatchClient, requests: list[dict[str, Any]]) -> str:
    """A batch that has done all it can."""
    batch_id: str = (await client.call("create", stage="email", requests=requests))["id"]

    async def stuck() -> bool:
        status = await client.call("status", id=batch_id)
        assert_status_shape(status)
        return bool(
            status["counts"]["succeeded"] == LLAMA + RUNNING and status["settled"]["succeeded"] == LLAMA
        )

    await eventually(stuck, "all but the stalled requests of the running shards are done")
    return batch_id


async def test_a_batch_canceled_midway_keeps_what_was_done_and_cancels_the_rest(client: BatchClient) -> None:
    requests = stuck_requests()
    batch_id = await create_stuck(client, requests)

    with pytest.raises(OperationFailed, match=r"^400 batch_not_ended: Batch not yet complete$"):
        await client.lines(batch_id)
    with pytest.raises(OperationFailed, match=r"^409 conflict_error: "):
        await client.call("delete", id=batch_id)
    partial = await client.lines(batch_id, partial=True)
    finished = [request for request in requests if "metadata" in request]
    assert [without_latency(line) for line in partial] == [
        succeeded_line(request, "llama-70b") for request in finished
    ]

    canceled = await client.call("cancel", id=batch_id)
    assert_status_shape(canceled)
    assert canceled["cancel_requested_at"]
    last = (await watch(client, batch_id))[-1]
    done, rest = LLAMA + RUNNING, SHARDS * SHARD_REQUESTS - RUNNING
    assert last["counts"] == counts(len(requests), done, canceled=rest)
    lines = await client.lines(batch_id)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in requests]
    for line, request in zip(lines, requests, strict=True):
        if line["status"] == "succeeded":
            model = request.get("metadata", {}).get("model_hint", "mistral")
            assert without_latency(line) == succeeded_line(request, model)
        else:
            assert_failed(line, "canceled", "canceled", "mistral")
    assert sum(line["status"] == "canceled" for line in lines) == rest

    await assert_idle(client)
    with pytest.raises(OperationFailed, match=r"^409 conflict_error: .*has ended"):
        await client.call("cancel", id=batch_id)
    assert await client.call("delete", id=batch_id) == {"id": batch_id, "deleted": True}


async def assert_idle(client: BatchClient) -> None:
    """Nothing of what was canceled is left at the platform, and what is submitted next is new work alone."""

    async def no_job() -> bool:
        return await count_jobs(client, "mistral", "IN_QUEUE", "IN_PROGRESS") == 0

    await eventually(no_job, "no job of the canceled batch is left")
    runs = await count_runs(client, "mistral")
    after = (await client.call("create", stage="email", requests=make_requests(SHARD_REQUESTS)))["id"]
    assert (await client.wait(after))["counts"]["succeeded"] == SHARD_REQUESTS
    assert await count_runs(client, "mistral") - runs == SHARD_REQUESTS // (SHARD_REQUESTS // 4)


async def test_a_canceled_batch_that_never_ran_has_a_line_for_each_request(client: BatchClient) -> None:
    requests = make_requests(50)
    async with faults(client, run_429=1):
        batch_id = (await client.call("create", stage="email", requests=requests))["id"]
        canceled = await client.call("cancel", id=batch_id)
    assert canceled["processing_status"] == "ended"
    assert canceled["counts"] == counts(50, 0, canceled=50)
    lines = await client.lines(batch_id)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in requests]
    for line in lines:
        assert_failed(line, "canceled", "canceled", "mistral")


@pytest.mark.parametrize("operation", ["status", "results", "cancel", "delete"])
async def test_an_unknown_batch_is_not_found(client: BatchClient, operation: str) -> None:
    for unknown in (f"batch_{0:024x}", f"batch_{'g' * 24}", "batch_1", "BATCH", "*", "batch:x\n", "ключ"):
        with pytest.raises(OperationFailed, match=r"^404 not_found_error: Batch .* not found$") as failure:
            await client.call(operation, id=unknown)
        assert failure.value.param == "id"
