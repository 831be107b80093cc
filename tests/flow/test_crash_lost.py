"""Work that is lost on the way: a frozen worker's output is adopted, and what hangs or dies in an engine runs again."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, make_requests
from tests.flow.cloud import JOBS_AT_ONCE, FlowCloud, count_fired
from tests.flow.crashes import armed, assert_cost, assert_finished_once, finish, struck
from tests.flow.expected import assert_all_succeeded, assert_failed, counts, watch
from tests.flow.fault_runs import cancel_what_seems_to_run

ONE = make_requests(1)
REQUESTS = make_requests(64)


@asynccontextmanager
async def thawed_after(client: BatchClient, endpoint: str) -> AsyncIterator[None]:
    """Workers of an endpoint that are frozen in the block go on when it ends."""
    try:
        yield
    finally:
        for worker in (await client.control("/workers"))[endpoint]:
            if psutil.Process(worker["pid"]).status() == psutil.STATUS_STOPPED:
                os.killpg(worker["pid"], signal.SIGCONT)


async def test_an_output_stored_by_a_worker_that_froze_is_adopted_though_the_first_who_tries_is_killed(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash
) -> None:
    before = await count_fired(crash_client, "freeze_after_output")
    async with (
        armed(crash_client, "freeze_after_output", "kill_mid_adoption"),
        thawed_after(crash_client, "mistral"),
    ):
        batch_id = (await crash_client.call("create", stage="email", requests=ONE))["id"]
        await struck(crash_client, "freeze_after_output", before)
        # Until then it is a run as any other.
        assert await cancel_what_seems_to_run(crash_cloud, crash_client) == 1
        last = await finish(crash_client, batch_id, ONE)
    await assert_cost(crash_redis, batch_id, last, begun=0, lost=0)
    lines = await crash_client.lines(batch_id)
    assert await crash_client.call("status", id=batch_id) == last
    assert_all_succeeded(lines, ONE)


async def test_a_shard_that_hangs_in_the_engine_runs_again_when_the_platform_stops_its_job(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash
) -> None:
    before = await count_fired(crash_client, "hang_in_engine")
    async with armed(crash_client, "hang_in_engine"):
        batch_id = (await crash_client.call("create", stage="email", requests=ONE))["id"]
        await struck(crash_client, "hang_in_engine", before)
        assert await crash_client.control("/jobs/overrun", {"endpoint": "mistral"}) == {"overrun": 1}
        last = await finish(crash_client, batch_id, ONE)
    assert_finished_once(crash_cloud, batch_id)
    # Blame is for jobs that were stopped after ten minutes.
    await assert_cost(crash_redis, batch_id, last, begun=1, lost=0)


async def test_an_engine_that_dies_takes_its_worker_along_and_no_request(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash
) -> None:
    async with armed(crash_client, "engine_dies"):
        batch_id = (await crash_client.call("create", stage="email", requests=REQUESTS))["id"]
        last = await finish(crash_client, batch_id, REQUESTS)
    assert_finished_once(crash_cloud, batch_id)
    await assert_cost(crash_redis, batch_id, last, begun=JOBS_AT_ONCE, lost=JOBS_AT_ONCE)


async def test_a_request_that_runs_out_of_memory_in_the_engine_is_errored_alone(
    crash_client: BatchClient,
) -> None:
    async with armed(crash_client, "out_of_memory"):
        batch_id = (await crash_client.call("create", stage="email", requests=REQUESTS))["id"]
        last = (await watch(crash_client, batch_id))[-1]
    assert (last["counts"], last["lost_attempts"]) == (counts(64, 63, 1), 0)
    lines = await crash_client.lines(batch_id)
    [failed] = [number for number, line in enumerate(lines) if line["status"] != "succeeded"]
    assert_failed(lines[failed], "errored", "api_error", "mistral")
    del lines[failed]
    assert_all_succeeded(lines, [request for number, request in enumerate(REQUESTS) if number != failed])
