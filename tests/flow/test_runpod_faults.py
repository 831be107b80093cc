"""RunPod misbehaves in every way that has a name: no result is lost or doubled, nobody is blamed, little repeated."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud, count_fired, count_runs, eventually, faults
from tests.flow.expected import assert_all_succeeded, watch
from tests.flow.fault_runs import Cost, cancel_what_seems_to_run, run_under, two_workers

SOME = make_requests(200)
SHARDS = 8
# More shards than run at a time, each for longer than a moment: some wait at the platform while others run.
MANY = make_requests(800)
NEXT = {"times": 3}


def assert_free(cost: Cost) -> None:
    """Nothing was begun twice and nobody was blamed."""
    assert (cost.begun_again, cost.blamed) == (0, 0)


@pytest.mark.parametrize("fault", ["run_429", "run_429_html", "run_500", "run_cut_before"])
async def test_a_refused_submission_costs_a_rest_and_nothing_else(
    client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    assert_free(await run_under(client, cloud_redis, SOME, **{fault: NEXT}))


async def test_a_submission_cut_off_after_it_was_accepted_is_run_once(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    assert_free(await run_under(client, cloud_redis, SOME, run_cut_after=NEXT))


async def test_a_submission_that_is_answered_after_its_job_ended_changes_nothing(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    assert_free(await run_under(client, cloud_redis, SOME, run_slow=NEXT))


@pytest.mark.parametrize("fault", ["status_completed", "status_failed"])
async def test_a_false_end_of_a_waiting_job_computes_nothing_twice(
    client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    cost = await run_under(client, cloud_redis, MANY, **{fault: NEXT})
    assert cost.begun_again == 0
    assert cost.blamed <= cost.fired


@pytest.mark.parametrize("fault", ["status_404", "status_500", "status_slow"])
async def test_a_status_that_tells_nothing_blames_nobody(
    client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    assert_free(await run_under(client, cloud_redis, MANY, **{fault: NEXT}))


@pytest.mark.parametrize("fault", ["fail_unstarted_job", "complete_unstarted_job"])
async def test_a_job_that_ends_before_a_worker_has_it_is_submitted_again(
    client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    runs = await count_runs(client, "mistral")
    cost = await run_under(client, cloud_redis, SOME, **{fault: NEXT})
    assert cost.begun_again == 0
    assert cost.blamed <= cost.fired
    assert await count_runs(client, "mistral") - runs >= SHARDS + cost.fired


async def test_a_waiting_job_that_vanishes_is_submitted_again_and_blames_nobody(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    runs = await count_runs(client, "mistral")
    cost = await run_under(client, cloud_redis, SOME, forget_queued_job=NEXT)
    assert_free(cost)
    assert await count_runs(client, "mistral") - runs >= SHARDS + cost.fired


async def test_a_running_job_that_vanishes_settles_all_the_same(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    assert_free(await run_under(client, cloud_redis, MANY, forget_running_job=NEXT))


@pytest.mark.parametrize(
    "values",
    [
        {"cancel_running_job": NEXT},
        {"overrun_running_job": NEXT},
        {"overrun_running_job": NEXT, "overrun_times_out": 1},
    ],
    ids="+".join,
)
async def test_a_job_that_is_stopped_while_it_runs_is_begun_again_once(
    client: BatchClient, cloud_redis: Upstash, values: dict[str, object]
) -> None:
    cost = await run_under(client, cloud_redis, MANY, **values)
    assert cost.begun_again <= NEXT["times"]
    assert cost.blamed == 0, "it had run for a moment only"


async def test_a_job_that_two_workers_have_at_a_time_gives_one_result(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    async with two_workers(client, "mistral"):
        cost = await run_under(client, cloud_redis, MANY, requeue_running_job=NEXT)
    assert cost.begun_again <= cost.fired
    assert cost.blamed <= cost.fired


async def test_a_job_that_its_own_worker_is_given_again_gives_one_result(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    cost = await run_under(client, cloud_redis, MANY, requeue_running_job=NEXT)
    assert cost.begun_again <= cost.fired
    assert cost.blamed <= cost.fired


async def test_a_job_that_completes_without_its_output_settled_before(
    client: BatchClient, cloud_redis: Upstash
) -> None:
    assert_free(await run_under(client, cloud_redis, SOME, drop_output=1))


@pytest.mark.parametrize("fault", ["result_400", "result_500"])
async def test_a_result_that_the_platform_refuses_settled_before(
    cloud: FlowCloud, client: BatchClient, cloud_redis: Upstash, fault: str
) -> None:
    try:
        assert_free(await run_under(client, cloud_redis, SOME, **{fault: NEXT}))
    finally:
        await cancel_what_seems_to_run(cloud, client)


async def test_a_caller_whose_call_is_cut_by_the_edge_repeats_it_and_has_one_batch(
    client: BatchClient,
) -> None:
    before = await count_fired(client, "runsync_524")
    batch: dict[str, Any] = {"stage": "email", "requests": SOME, "idempotency_key": "cut-by-the-edge"}
    async with faults(client, runsync_524={"times": 2}):
        with pytest.raises(json.JSONDecodeError):
            await client.call("create", **batch)
        created = await repeat(client, "create", **batch)
    assert await count_fired(client, "runsync_524") - before == 2
    assert await client.call("create", **batch) == created
    async with faults(client, runsync_524=0.3):

        async def ended() -> bool:
            status = await repeat(client, "status", id=created["id"])
            return bool(status["processing_status"] == "ended")

        await eventually(ended, "the batch ends for a caller whose calls are cut", timeout_s=60)
    assert_all_succeeded(await client.lines(created["id"]), SOME)


async def repeat(client: BatchClient, operation: str, **fields: Any) -> dict[str, Any]:
    """Calls until there is an answer."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await client.call(operation, **fields)
            except (aiohttp.ClientError, json.JSONDecodeError):
                continue


async def test_a_health_that_knows_of_no_workers_stops_nothing(client: BatchClient) -> None:
    async with faults(client, health_empty=1):
        batch_id = (await client.call("create", stage="email", requests=SOME))["id"]
        health = await client.call("health")
        mistral = health["endpoints"]["mistral"]
        assert set(mistral["workers"].values()) == set(mistral["jobs"].values()) == {0}
        last = (await watch(client, batch_id))[-1]
    assert last["lost_attempts"] == 0
    assert_all_succeeded(await client.lines(batch_id), SOME)
