"""Workers that crash at the worst moments of a batch's way: one right line per request, and no finished work twice."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, make_requests
from tests.flow.cloud import JOBS_AT_ONCE, FlowCloud, count_fired
from tests.flow.crashes import (
    armed,
    assert_cost,
    assert_finished_once,
    finish,
    settled_epochs,
    struck,
)
from tests.local_cloud.failpoints.table import ACTS, FAILPOINTS

# 16 shards.
REQUESTS = make_requests(64)
# Far more shards than may wait at a time, so that model workers feed too.
MANY = make_requests(192)

KILLED_MODEL_WORKERS = [
    "kill_before_start",
    "kill_after_start",
    "kill_in_engine",
    "kill_mid_shard",
    "kill_after_output",
    "kill_after_settle",
]
KILLED_FEEDERS = [
    "kill_after_claim_by_model_worker",
    "kill_after_run_by_model_worker",
]
KILLED_BATCH_WORKERS = [
    "kill_before_commit",
    "kill_after_commit",
    "kill_after_claim",
    "kill_after_run",
    "kill_after_record",
]
KILLED_REPAIRS = ["kill_after_sweep", "kill_before_requeue", "kill_after_requeue"]
ASKED_TO_END = [
    "term_before_start",
    "term_mid_shard",
    "term_after_output",
    "term_after_commit",
    "term_after_run",
]


async def create(client: BatchClient, requests: Sequence[dict[str, Any]] = REQUESTS) -> str:
    key = f"crash-{uuid4()}"
    created = await client.call("create", stage="email", requests=requests, idempotency_key=key)
    return str(created["id"])


@pytest.mark.parametrize(
    ("failpoint", "requests"),
    [*((name, REQUESTS) for name in KILLED_MODEL_WORKERS), *((name, MANY) for name in KILLED_FEEDERS)],
    ids=[*KILLED_MODEL_WORKERS, *KILLED_FEEDERS],
)
async def test_a_model_worker_killed_at_any_moment_costs_what_it_ran_and_no_more(
    crash_cloud: FlowCloud,
    crash_client: BatchClient,
    crash_redis: Upstash,
    failpoint: str,
    requests: Sequence[dict[str, Any]],
) -> None:
    before = await count_fired(crash_client, failpoint)
    async with armed(crash_client, failpoint):
        batch_id = await create(crash_client, requests)
        await struck(crash_client, failpoint, before)
        settled = await settled_epochs(crash_redis, batch_id)
        last = await finish(crash_client, batch_id, requests)
    assert settled.items() <= (await settled_epochs(crash_redis, batch_id)).items()
    assert_finished_once(crash_cloud, batch_id)
    await assert_cost(crash_redis, batch_id, last, begun=JOBS_AT_ONCE, lost=JOBS_AT_ONCE)


@pytest.mark.parametrize("failpoint", KILLED_BATCH_WORKERS)
async def test_a_batch_worker_killed_at_any_moment_of_a_create_costs_no_work(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash, failpoint: str
) -> None:
    async with armed(crash_client, failpoint):
        batch_id = await create(crash_client)
        last = await finish(crash_client, batch_id, REQUESTS)
    assert_finished_once(crash_cloud, batch_id)
    await assert_cost(crash_redis, batch_id, last, begun=0, lost=0)


@pytest.mark.parametrize("failpoint", KILLED_REPAIRS)
async def test_a_worker_killed_in_a_repair_leaves_it_to_others(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash, failpoint: str
) -> None:
    # A refused submission is given back: the first repair that a batch can need.
    async with armed(crash_client, "run_429", failpoint):
        batch_id = await create(crash_client)
        last = await finish(crash_client, batch_id, REQUESTS)
    assert_finished_once(crash_cloud, batch_id)
    await assert_cost(crash_redis, batch_id, last, begun=JOBS_AT_ONCE, lost=JOBS_AT_ONCE)


@pytest.mark.parametrize("failpoint", ASKED_TO_END)
async def test_a_worker_asked_to_end_at_any_moment_costs_nothing(
    crash_cloud: FlowCloud, crash_client: BatchClient, crash_redis: Upstash, failpoint: str
) -> None:
    async with armed(crash_client, failpoint):
        batch_id = await create(crash_client)
        last = await finish(crash_client, batch_id, REQUESTS)
    assert_finished_once(crash_cloud, batch_id)
    await assert_cost(crash_redis, batch_id, last, begun=0, lost=0)


async def test_the_faults_of_a_cloud_with_failpoints_name_them_and_say_what_they_do(
    crash_client: BatchClient,
) -> None:
    shown = await crash_client.control("/faults")
    assert shown.keys() > FAILPOINTS.keys()
    for name, failpoint in FAILPOINTS.items():
        assert shown[name]["effect"] == failpoint.effect
        assert failpoint.effect.startswith(ACTS.get(failpoint.act, failpoint.effect))
