"""What once went wrong in the state, by its symptom."""

import secrets
from collections.abc import Awaitable, Callable, Sequence

import pytest

from shared.adapters import keys, upstash
from shared.adapters.redis_batches import LEASES_PER_ENDPOINT, RedisBatches
from shared.adapters.redis_shards import RedisRuns
from shared.adapters.upstash import ATTEMPTS, Upstash
from shared.core.lifecycle import Event, ShardState
from shared.core.repair import JobState
from shared.errors import InvalidRequest, StateUnavailable, StorageUnavailable
from shared.flow.submission import Limits
from shared.ports.state import Endpoint, Submitted
from tests.conftest import Clock, UpstashAddress
from tests.contract.misbehaving import Answer, Misbehaving
from tests.contract.service import Service, build
from tests.contract.state import LLAMA, MISTRAL, TIMING, Store, job_of
from tests.contract.test_state_lifecycle import bring_to, fire
from tests.fakes import FakeJobs


async def test_of_two_delayed_retries_the_later_one_comes_back_too(store: Store, clock: Clock) -> None:
    await store.create({"mistral": [4, 4]})
    one, two = await store.run()
    await store.requeue(one.ref, delay_ms=5000)
    await store.requeue(two.ref, delay_ms=10_000)
    clock.advance_s(6)
    assert [claim.ref for claim in await store.claim()] == [one.ref]
    clock.advance_s(5)
    assert [claim.ref for claim in await store.claim()] == [two.ref]


async def cancel_before_any_settle(store: Store, clock: Clock) -> None:
    batch = await store.create()
    await store.submit()
    await store.batches.stop(batch.id, "canceled")


async def bring_a_delayed_retry_back(store: Store, clock: Clock) -> None:
    await store.create()
    [claim] = await store.run()
    await store.claim()
    await store.requeue(claim.ref, delay_ms=1000)
    clock.advance_s(2)
    await store.queue.claim(MISTRAL, 0, [])


@pytest.mark.parametrize("steps", [cancel_before_any_settle, bring_a_delayed_retry_back])
async def test_every_key_has_an_end(
    store: Store, clock: Clock, steps: Callable[[Store, Clock], Awaitable[None]]
) -> None:
    await steps(store, clock)
    assert [name for name, ttl_ms in (await store.ttls_ms()).items() if ttl_ms < 0] == []


@pytest.mark.parametrize("state", [ShardState.QUEUED, ShardState.SETTLED])
async def test_a_requeue_of_what_is_settled_or_queued_changes_nothing(
    store: Store, state: ShardState
) -> None:
    ref = await bring_to(store, state)
    before = await store.dump()
    await fire(store, Event.REQUEUE, ref)
    assert await store.dump() == before


async def test_a_start_whose_reply_was_lost_is_one_start_and_no_death(
    store: Store, upstash_server: UpstashAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstash, "RETRY_PAUSE_S", 0.0)
    await store.create({"mistral": [4, 4]})
    [first, second] = await store.submit()
    async with Misbehaving(upstash_server.url).serving() as proxy:
        client = Upstash(proxy.url, upstash_server.token)
        runs = RedisRuns(client, TIMING)
        await runs.start(first.ref, first.attempt, "job-0-1", "w1", MISTRAL)
        proxy.lose = 1
        started = await runs.start(second.ref, second.attempt, "job-1-1", "w1", MISTRAL)
        await client.close()
    shard = await store.shard(second.ref)
    assert shard is not None
    assert (started.verdict, started.epoch, shard.epoch, shard.deaths) == ("run", 1, 1, 0)


async def test_a_start_that_is_sent_again_after_a_cancel_is_no_death(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await store.create()
    [claim] = await store.submit()
    monkeypatch.setattr(secrets, "token_hex", lambda length: "the same call")
    await store.start(claim)
    await store.batches.stop(batch.id, "canceled")
    assert (await store.start(claim)).verdict == "canceled"
    assert (await store.batch(batch.id)).deaths == 0
    assert await store.redis.execute("EXISTS", keys.deaths(MISTRAL.id)) == 0


async def test_a_batch_ends_though_one_of_its_models_is_no_longer_configured(store: Store) -> None:
    batch = await store.create({"mistral": [4], "llama-70b": [4]})
    await store.batches.sweep(None, force=True)
    [claim] = await store.claim(endpoint=LLAMA)
    await store.requeue(claim.ref)
    later = RedisBatches(store.redis, [MISTRAL], 1)
    await later.sweep(None, force=True)
    await later.stop(batch.id, "canceled")
    assert (await store.batch(batch.id)).ended_ms is not None


class JobsAtMistral(FakeJobs):
    """One queued job, that no other endpoint has heard of."""

    async def status(self, endpoint: Endpoint, job: str) -> JobState:
        return JobState.QUEUED if endpoint == MISTRAL else JobState.GONE


async def test_a_webhook_that_names_another_endpoint_moves_nothing(service: Service, clock: Clock) -> None:
    store = service.store
    await store.create()
    [claim] = await store.claim()
    await store.queue.record(MISTRAL, [Submitted(claim.ref, claim.attempt, "job")])
    clock.advance_s(120)
    operations = build(store, Limits(), JobsAtMistral()).operations
    forged = {"input": {"batch": claim.ref.batch, "shard": 0, "attempt": 1, "endpoint": LLAMA.id}}
    await operations.handle({"operation": "webhook", "body": forged})
    assert await store.state(claim.ref) is ShardState.SUBMITTED


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
async def test_a_hint_with_an_infinite_shard_does_not_stop_the_tick(service: Service, number: str) -> None:
    body = f'{{"input": {{"batch": "b", "shard": {number}, "endpoint": "{MISTRAL.id}"}}}}'
    await service.store.redis.execute("RPUSH", keys.INBOXES[0], body)
    assert await service.operations.handle({"operation": "reconcile"}) == {"rounds": 1}


async def test_a_page_token_in_other_digits_is_refused(store: Store) -> None:
    with pytest.raises(InvalidRequest):
        await store.batches.listing(2, "\u0661:batch_1")


@pytest.mark.parametrize("fault", ["null", "[]"])
@pytest.mark.parametrize("call", ["command", "pipeline"])
async def test_json_that_is_not_upstashs_is_typed(
    monkeypatch: pytest.MonkeyPatch, fault: str, call: str
) -> None:
    monkeypatch.setattr(upstash, "RETRY_PAUSE_S", 0.0)
    async with Misbehaving().serving() as server:
        server.answers.extend([Answer(200, fault)] * ATTEMPTS)
        client = Upstash(server.url, "token")
        with pytest.raises(StateUnavailable):
            await (client.execute("GET", "a") if call == "command" else client.pipeline([["GET", "a"]]))
        await client.close()


async def stopped_while_running(service: Service, clock: Clock, batches: int = 1) -> None:
    """Batches past their time, each with a shard that a worker seems to run."""
    for _ in range(batches):
        await service.store.create(expires_in_ms=60_000)
    for claim in await service.store.run(batches):
        service.jobs.states[job_of(claim)] = JobState.RUNNING
    clock.advance_s(100)


async def test_reconcile_does_not_spin_on_an_expired_batch_whose_shard_still_runs(
    service: Service, clock: Clock
) -> None:
    await stopped_while_running(service, clock)
    assert (await service.operations.handle({"operation": "reconcile"}))["rounds"] <= 2


async def test_expired_batches_that_wait_for_their_shards_do_not_hold_up_the_expiry_of_others(
    service: Service, clock: Clock
) -> None:
    waiting = await service.store.create({"llama-70b": [4]}, expires_in_ms=90_000)
    await stopped_while_running(service, clock, batches=LEASES_PER_ENDPOINT)
    await service.operations.handle({"operation": "reconcile"})
    assert (await service.store.batch(waiting.id)).settled["expired"] == 4


async def test_reconcile_does_not_spin_on_a_lease_that_can_not_be_looked_after(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(keys: Sequence[str]) -> list[bytes | None]:
        raise StorageUnavailable("no storage")

    monkeypatch.setattr(service.payloads, "get", refuse)
    await service.store.create()
    [claim] = await service.store.run()
    service.jobs.states[job_of(claim)] = JobState.FAILED
    clock.advance_s(100)
    assert await service.operations.handle({"operation": "reconcile"}) == {"rounds": 1}


async def test_a_cancel_whose_reply_was_lost_is_no_cancel_of_an_ended_batch(
    store: Store, upstash_server: UpstashAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstash, "RETRY_PAUSE_S", 0.0)
    first, second = await store.create(), await store.create()
    async with Misbehaving(upstash_server.url).serving() as proxy:
        client = Upstash(proxy.url, upstash_server.token)
        batches = RedisBatches(client, [MISTRAL, LLAMA], 1)
        await batches.stop(first.id, "canceled")
        proxy.lose = 1
        assert (await batches.stop(second.id, "canceled")).verdict == "stopped"
        assert (await batches.stop(second.id, "canceled")).verdict == "ended"
        await client.close()
