"""What kills engines: a request is found and errored alone, and a bad image errors nothing at all."""

import asyncio

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from tests.client import BatchClient, make_requests
from tests.flow.cloud import eventually, faults
from tests.flow.crashes import PATIENCE_S
from tests.flow.expected import assert_all_succeeded, assert_failed, counts, watch

# 16 shards, all of them in the one engine of llama.
REQUESTS = make_requests(32)
POISON = 19
# Each death costs a worker's start, and from the fourth on the platform waits before it.
DYING_S = 180.0


async def test_a_request_that_kills_its_worker_each_time_is_errored_alone_and_all_others_succeed(
    crash_client: BatchClient,
) -> None:
    # An endpoint is known to work once it settled something.
    batch_id = (await crash_client.call("create", stage="polish", requests=make_requests(1)))["id"]
    await crash_client.wait(batch_id, timeout_s=PATIENCE_S)
    requests = make_requests(32)
    requests[POISON]["params"]["messages"][0]["content"] += " [[kill]]"
    batch_id = (await crash_client.call("create", stage="polish", requests=requests))["id"]
    last = (await watch(crash_client, batch_id, poll_s=0.2, timeout_s=DYING_S))[-1]
    assert last["counts"] == counts(32, 31, 1)
    # Once alone as one of two, and twice as a single one; before that in company.
    assert last["splits"] > 0
    assert last["lost_attempts"] > 3
    assert last["attempts"] > 16
    lines = await crash_client.lines(batch_id)
    assert_failed(lines[POISON], "errored", "worker_error", "llama-70b")
    assert lines[POISON]["custom_id"] == requests[POISON]["custom_id"]
    del lines[POISON], requests[POISON]
    assert_all_succeeded(lines, requests, "llama-70b")


async def test_a_bad_image_errors_nothing_and_what_it_held_up_succeeds_with_a_good_one(
    crash_client: BatchClient, crash_redis: Upstash
) -> None:
    await forget_its_past(crash_redis, "llama")

    async def is_open() -> bool:
        breaker = (await crash_client.call("health"))["endpoints"]["llama-70b"]["breaker"]
        return bool((breaker["state"], breaker["cause"]) == ("open", "deaths"))

    async with faults(crash_client, engine_dies=1):
        batch_id = (await crash_client.call("create", stage="polish", requests=REQUESTS))["id"]
        await eventually(is_open, "the breaker opens", PATIENCE_S)
        assert not (await crash_client.call("health"))["ready"]
        status = await crash_client.call("status", id=batch_id)
        assert status["counts"] == counts(32, 0) | {"pending": 32}
    last = (await watch(crash_client, batch_id, poll_s=0.2, timeout_s=DYING_S))[-1]
    assert last["counts"] == counts(32, 32)
    assert_all_succeeded(await crash_client.lines(batch_id), REQUESTS, "llama-70b")
    assert not await is_open()


async def forget_its_past(redis: Upstash, endpoint: str) -> None:
    """As if the endpoint had never settled a shard."""
    await asyncio.gather(
        *(redis.execute("DEL", key(endpoint)) for key in (keys.proof, keys.deaths, keys.rest))
    )
