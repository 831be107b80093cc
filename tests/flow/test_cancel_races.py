"""A cancel against what goes on at that moment: nothing new begins, and a race with the end is decided once."""

import asyncio
from collections import Counter
from datetime import datetime

import pytest

from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import JOBS_AT_ONCE, count_jobs, count_runs, eventually
from tests.flow.expected import (
    assert_failed,
    assert_status_shape,
    succeeded_line,
    watch,
    without_latency,
)
from tests.flow.test_cancel_and_delete import create_stuck, stuck_requests

BATCHES = 40
AT_ONCE = 8
# Beats are 0.3 s apart; a machine that is busy with other things may take its time.
ABORTED_WITHIN_S = 20


async def test_a_cancel_submits_nothing_more_and_aborts_what_runs_within_seconds(client: BatchClient) -> None:
    batch_id = await create_stuck(client, stuck_requests())

    async def full() -> bool:
        return await count_jobs(client, "mistral", "IN_QUEUE") == JOBS_AT_ONCE

    await eventually(full, "as many shards wait at the platform as may")
    runs = await count_runs(client, "mistral")
    canceled = await client.call("cancel", id=batch_id)
    last = (await watch(client, batch_id))[-1]
    times = [datetime.fromisoformat(last[name]) for name in ("cancel_requested_at", "ended_at")]
    assert (times[1] - times[0]).total_seconds() < ABORTED_WITHIN_S
    assert last["cancel_requested_at"] == canceled["cancel_requested_at"]
    await client.call("reconcile")
    assert await count_runs(client, "mistral") == runs


async def test_a_cancel_that_races_the_end_is_decided_once(client: BatchClient) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            await race(client, number)

    await asyncio.gather(*(one(number) for number in range(BATCHES)))


async def race(client: BatchClient, number: int) -> None:
    """A batch of a few short requests, canceled after none or some looks at it."""
    requests = make_requests(1 + number % 4)
    for request in requests:
        request["params"]["max_tokens"] = 1 + 7 * number % 30
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    for _ in range(number % 5):
        await client.call("status", id=batch_id)
    won = await cancels(client, batch_id)
    last = (await watch(client, batch_id))[-1]
    assert (last["cancel_requested_at"] is not None) == won
    lines = await client.lines(batch_id)
    assert Counter(line["status"] for line in lines) == {k: n for k, n in last["settled"].items() if n}
    assert {line["status"] for line in lines} <= ({"succeeded", "canceled"} if won else {"succeeded"})
    for line, request in zip(lines, requests, strict=True):
        assert line["custom_id"] == request["custom_id"]
        if line["status"] == "succeeded":
            assert without_latency(line) == succeeded_line(request, "mistral")
        else:
            assert_failed(line, "canceled", "canceled", "mistral")
    with pytest.raises(OperationFailed, match=r"^409 conflict_error: .*has ended"):
        await client.call("cancel", id=batch_id)
    assert await client.call("status", id=batch_id) == last, "what ended never changes"
    assert await client.lines(batch_id) == lines


async def cancels(client: BatchClient, batch_id: str) -> bool:
    """Whether the cancel came before the end."""
    try:
        status = await client.call("cancel", id=batch_id)
    except OperationFailed as refused:
        if refused.type != "conflict_error":
            raise
        return False
    assert_status_shape(status)
    return True
