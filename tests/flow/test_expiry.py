"""The end of a batch's time: what was done is kept, all the rest is expired."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.client import BatchClient, make_requests
from tests.flow.cloud import connected, eventually, flow_cloud
from tests.flow.expected import assert_failed, counts, succeeded_line, watch, without_latency


@pytest_asyncio.fixture
async def hasty_client(tmp_path: Path) -> AsyncIterator[BatchClient]:
    """Of a cloud whose batches live for seconds. Mistral runs two jobs of ten requests at a time, llama none."""
    env = {
        "LOCAL_WORKERS": "llama=0",
        "BATCH_EXPIRES_S": "8",
        "WORKER_CONCURRENCY": "2",
        "MISTRAL_SHARD_REQUESTS": "10",
        "MISTRAL_SLOTS": "10",
    }
    async with flow_cloud(tmp_path, **env) as cloud, connected(cloud) as client:
        yield client


async def test_an_expired_batch_keeps_what_was_done_and_expires_the_rest(hasty_client: BatchClient) -> None:
    requests = make_requests(80)
    for request in requests[::10]:
        # One of each shard never ends, so the first two shards keep the worker from all others.
        request["params"]["messages"][0]["content"] += " [[stall]]"
    started = (await hasty_client.call("create", stage="email", requests=requests))["id"]
    unstarted = (await hasty_client.call("create", stage="polish", requests=requests))["id"]

    async def submitted() -> bool:
        status = await hasty_client.call("status", id=unstarted)
        return bool(status["processing_status"] == "submitted")

    await eventually(submitted, "its first shard waits at the platform")
    statuses = await watch(hasty_client, started)
    assert [status["counts"]["succeeded"] for status in statuses[:-1]][-1] == 18
    last = statuses[-1]
    assert last["counts"] == counts(80, 18, expired=62)
    assert last["cancel_requested_at"] is None
    assert last["ended_at"] >= last["expires_at"]
    lines = await hasty_client.lines(started)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in requests]
    for line, request in zip(lines, requests, strict=True):
        if line["status"] == "succeeded":
            assert without_latency(line) == succeeded_line(request, "mistral")
        else:
            assert_failed(line, "expired", "expired", "mistral")

    assert (await watch(hasty_client, unstarted))[-1]["counts"] == counts(80, 0, expired=80)
    for line in await hasty_client.lines(unstarted):
        assert_failed(line, "expired", "expired", "llama-70b")
    assert await hasty_client.call("delete", id=started) == {"id": started, "deleted": True}
