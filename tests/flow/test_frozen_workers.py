"""Workers that freeze, are replaced and thaw, or that only seem to be lost: they cost some work, and no result."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Protocol

import pytest
import pytest_asyncio

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, make_requests
from tests.flow.cloud import (
    JOBS_AT_ONCE,
    FlowCloud,
    connected,
    count_fired,
    eventually,
    faults,
    flow_cloud,
    wait_for_worker,
)
from tests.flow.expected import assert_all_succeeded, counts, watch
from tests.flow.fault_runs import begun_again

REQUESTS = make_requests(1000)
# Takes longer than a silence that is borne.
LONG = make_requests(3000)
# What the loss of a worker may cost: its jobs are begun again, and once more if it begins what it was handed before.
IN_HAND = 2 * JOBS_AT_ONCE


class EndsWell(Protocol):
    def __call__(self, batch_id: str, requests: Sequence[dict[str, Any]] = ..., /) -> Awaitable[None]: ...


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nervous_cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FlowCloud]:
    """A platform that soon takes a silent worker for lost."""
    pings = {"LOCAL_PING_INTERVAL_MS": "1000", "LOCAL_PING_GRACE_S": "3"}
    async with flow_cloud(tmp_path_factory.mktemp("nervous-cloud"), **pings) as cloud:
        yield cloud


@pytest_asyncio.fixture
async def nervous(nervous_cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    async with connected(nervous_cloud) as client:
        yield client


@pytest_asyncio.fixture
async def redis(nervous_cloud: FlowCloud) -> AsyncIterator[Upstash]:
    redis = Upstash(nervous_cloud.address["redis_url"], nervous_cloud.address["redis_token"])
    yield redis
    await redis.close()


async def freeze_midway(client: BatchClient, batch_id: str) -> str:
    """Freezes the worker of mistral that runs the batch, once it has settled something; its id."""

    async def settled() -> bool:
        status = await client.call("status", id=batch_id)
        assert status["counts"]["pending"], "the batch ended before anything could happen to it"
        return bool(status["settled"]["succeeded"])

    await eventually(settled, "a shard is settled", timeout_s=40)
    worker = await wait_for_worker(client, "mistral")
    await signal(client, worker["worker_id"], "STOP")
    return str(worker["worker_id"])


async def signal(client: BatchClient, worker_id: str, name: str) -> None:
    await client.control(f"/workers/{worker_id}/signal", {"signal": name})


async def state_of(client: BatchClient, endpoint: str, worker_id: str) -> str:
    workers = (await client.control("/workers"))[endpoint]
    return next((str(worker["state"]) for worker in workers if worker["worker_id"] == worker_id), "gone")


async def replaced(client: BatchClient, endpoint: str, worker_id: str) -> None:
    async def another_is_ready() -> bool:
        workers: list[dict[str, Any]] = (await client.control("/workers"))[endpoint]
        return any(worker["state"] == "ready" and worker["worker_id"] != worker_id for worker in workers)

    await eventually(another_is_ready, "another worker is ready", timeout_s=40)


async def gone(client: BatchClient, endpoint: str, worker_id: str) -> None:
    async def left() -> bool:
        return await state_of(client, endpoint, worker_id) == "gone"

    await eventually(left, "the worker that was replaced has ended", timeout_s=60)


def starts_of_mistral(cloud: FlowCloud) -> int:
    return cloud.logs("mistral-*").count("=== worker mistral-")


@pytest.fixture
def assert_ended_well(nervous_cloud: FlowCloud, nervous: BatchClient, redis: Upstash) -> EndsWell:
    """Waits for a batch's end: one line for each request, and no more begun again than the lost workers explain."""
    starts = starts_of_mistral(nervous_cloud)

    async def check(batch_id: str, requests: Sequence[dict[str, Any]] = REQUESTS) -> None:
        last = (await watch(nervous, batch_id))[-1]
        assert last["counts"] == counts(len(requests), len(requests))
        assert_all_succeeded(await nervous.lines(batch_id), requests)
        # A busy machine may silence more workers than the test does.
        explained = IN_HAND * (starts_of_mistral(nervous_cloud) - starts)
        assert last["lost_attempts"] <= explained
        assert await begun_again(redis, batch_id) <= explained

    return check


async def test_a_worker_that_thaws_while_its_replacement_works_doubles_nothing(
    nervous: BatchClient, assert_ended_well: EndsWell
) -> None:
    batch_id = (await nervous.call("create", stage="email", requests=REQUESTS))["id"]
    frozen = await freeze_midway(nervous, batch_id)
    try:
        await replaced(nervous, "mistral", frozen)
    finally:
        await signal(nervous, frozen, "CONT")
    await assert_ended_well(batch_id)
    await gone(nervous, "mistral", frozen)


async def test_a_worker_that_thaws_after_its_batch_ended_changes_nothing(
    nervous: BatchClient, redis: Upstash, assert_ended_well: EndsWell
) -> None:
    batch_id = (await nervous.call("create", stage="email", requests=REQUESTS))["id"]
    frozen = await freeze_midway(nervous, batch_id)
    try:
        await assert_ended_well(batch_id)
        ended, lines = await nervous.call("status", id=batch_id), await nervous.lines(batch_id)
        starts = await begun_again(redis, batch_id)
        assert await state_of(nervous, "mistral", frozen) == "unhealthy"
    finally:
        await signal(nervous, frozen, "CONT")
    await gone(nervous, "mistral", frozen)
    assert await nervous.call("status", id=batch_id) == ended
    assert await nervous.lines(batch_id) == lines
    assert await begun_again(redis, batch_id) == starts, "it was given nothing to begin"


async def test_a_frozen_batch_worker_keeps_no_caller_from_an_answer(
    nervous: BatchClient, assert_ended_well: EndsWell
) -> None:
    batch_id = (await nervous.call("create", stage="email", requests=REQUESTS))["id"]
    worker = await wait_for_worker(nervous, "batch-api")
    await signal(nervous, worker["worker_id"], "STOP")
    try:
        # The first call may be on its way to the frozen worker: the platform delivers it again.
        await assert_ended_well(batch_id)
    finally:
        await signal(nervous, worker["worker_id"], "CONT")
    await gone(nervous, "batch-api", worker["worker_id"])
    assert_all_succeeded(await nervous.lines(batch_id), REQUESTS)


async def test_a_worker_that_froze_while_it_waited_and_thaws_with_jobs_that_run_elsewhere_doubles_nothing(
    nervous: BatchClient, assert_ended_well: EndsWell
) -> None:
    worker = await wait_for_worker(nervous, "mistral")
    await signal(nervous, worker["worker_id"], "STOP")
    try:
        batch_id = (await nervous.call("create", stage="email", requests=REQUESTS))["id"]
        await replaced(nervous, "mistral", worker["worker_id"])

        async def begun() -> bool:
            return bool((await nervous.call("status", id=batch_id))["processing_status"] == "processing")

        await eventually(begun, "the replacement has begun", timeout_s=40)
    finally:
        await signal(nervous, worker["worker_id"], "CONT")
    await assert_ended_well(batch_id)
    await gone(nervous, "mistral", worker["worker_id"])


async def test_a_worker_whose_pings_are_lost_costs_no_result(
    nervous: BatchClient, assert_ended_well: EndsWell
) -> None:
    before = await count_fired(nervous, "lose_ping")
    batch_id = (await nervous.call("create", stage="email", requests=LONG))["id"]
    worker = await wait_for_worker(nervous, "mistral")
    async with faults(nervous, lose_ping=1):

        async def lost() -> bool:
            return await state_of(nervous, "mistral", worker["worker_id"]) != "ready"

        await eventually(lost, "the worker is taken for lost", timeout_s=40)
    assert await count_fired(nervous, "lose_ping") > before
    await assert_ended_well(batch_id, LONG)
    await gone(nervous, "mistral", worker["worker_id"])
