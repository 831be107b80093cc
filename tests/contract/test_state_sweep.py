"""The sweep: one read for a poll, and at most once per throttle what needs repair, on any endpoint ever used."""

import asyncio
import json

import pytest

from shared.adapters import keys
from shared.adapters.redis_batches import RedisBatches
from shared.adapters.upstash import Upstash
from shared.ports.state import Endpoint, Work
from tests.conftest import Clock
from tests.contract.state import ENDPOINTS, LLAMA, MISTRAL, Store, outcome

TICK_MS = 60_000
RETIRED = Endpoint(id="old-ep", url="http://runpod.invalid/v2/old-ep", model="mistral")


@pytest.fixture
def throttled(redis: Upstash) -> Store:
    return Store(redis, tick_ms=TICK_MS)


async def sweep(store: Store) -> Work:
    work = (await store.batches.sweep(None, force=True)).work
    assert work is not None
    return work


async def test_a_sweep_reads_the_batch_and_finds_the_work(throttled: Store) -> None:
    batch = await throttled.create()
    swept = await throttled.batches.sweep(batch.id)
    assert swept.batch is not None
    assert swept.batch.id == batch.id
    assert swept.work is not None
    assert list(swept.work.models) == ["mistral"]


async def test_a_sweep_without_a_batch_reads_none(throttled: Store) -> None:
    await throttled.create()
    assert (await throttled.batches.sweep(None)).batch is None


async def test_within_the_throttle_only_the_batch_is_read_by_any_process(throttled: Store) -> None:
    batch = await throttled.create()
    await throttled.batches.sweep(None)
    another = RedisBatches(throttled.redis, ENDPOINTS, TICK_MS)
    swept = await another.sweep(batch.id)
    assert swept.batch is not None
    assert swept.work is None


async def test_of_many_sweeps_at_once_one_does_the_work(throttled: Store) -> None:
    swept = await asyncio.gather(*(throttled.batches.sweep(None) for _ in range(8)))
    assert len([item for item in swept if item.work is not None]) == 1


async def test_force_overrides_the_throttle(throttled: Store) -> None:
    await throttled.batches.sweep(None)
    assert (await throttled.batches.sweep(None, force=True)).work is not None


async def test_the_throttle_ends_by_itself(store: Store) -> None:
    throttle = RedisBatches(store.redis, ENDPOINTS, 1500)
    await throttle.sweep(None)
    assert 0 < (await store.ttls_ms())[keys.TICK] <= 1500


class TestHints:
    async def test_they_are_drained_from_every_inbox(self, store: Store) -> None:
        bodies = [json.dumps({"n": number}) for number in range(8)]
        for name, body in zip(keys.INBOXES, bodies, strict=True):
            await store.redis.execute("RPUSH", name, body)
        assert sorted((await sweep(store)).hints) == bodies
        assert (await sweep(store)).hints == []

    async def test_some_at_a_time_in_order_of_arrival(self, store: Store) -> None:
        await store.redis.execute("RPUSH", keys.INBOXES[0], *(str(number) for number in range(20)))
        assert (await sweep(store)).hints == [str(number) for number in range(16)]
        assert (await sweep(store)).hints == ["16", "17", "18", "19"]

    async def test_an_oversized_one_is_dropped(self, store: Store) -> None:
        await store.redis.execute("RPUSH", keys.INBOXES[3], "x" * 70_000, "small")
        assert (await sweep(store)).hints == ["small"]
        assert await store.redis.execute("LLEN", keys.INBOXES[3]) == 0

    async def test_a_flooded_inbox_is_trimmed_and_gets_an_end(self, store: Store) -> None:
        await store.redis.execute("RPUSH", keys.INBOXES[1], *(["hint"] * 10_500))
        await sweep(store)
        assert await store.redis.execute("LLEN", keys.INBOXES[1]) == 10_000
        assert (await store.ttls_ms())[keys.INBOXES[1]] > 0

    async def test_any_text_comes_through(self, store: Store) -> None:
        text = '{"a": "\\"\\\\ é 日本 \u2028 \x7f 🙂"}'
        await store.redis.execute("RPUSH", keys.INBOXES[0], text)
        assert (await sweep(store)).hints == [text]


class TestLeases:
    async def test_an_overdue_one_is_found_on_any_endpoint(self, store: Store, clock: Clock) -> None:
        await store.create({"mistral": [4, 4], "llama-70b": [4]})
        [waiting] = await store.submit(1)
        [running] = await store.run(1)
        [other] = await store.run(1, endpoint=LLAMA)
        assert (await sweep(store)).leases == []
        clock.advance_s(16)
        found = {(item.endpoint, item.ref) for item in (await sweep(store)).leases}
        assert found == {(MISTRAL.id, waiting.ref), (MISTRAL.id, running.ref), (LLAMA.id, other.ref)}

    async def test_a_settled_shard_has_none(self, store: Store, clock: Clock) -> None:
        await store.create({"mistral": [4, 4]})
        one, _ = await store.run()
        await store.settle(one.ref, 1, outcome(4))
        clock.advance_s(16)
        assert one.ref not in [item.ref for item in (await sweep(store)).leases]

    async def test_the_oldest_come_first_and_not_all_at_once(self, store: Store, clock: Clock) -> None:
        await store.create({"mistral": [4] * 12})
        for _ in range(12):
            await store.claim(1)
            clock.advance_s(1)
        clock.advance_s(60)
        found = [item.ref.shard for item in (await sweep(store)).leases]
        assert found == list(range(8))

    async def test_one_on_an_endpoint_that_is_no_longer_configured_is_found(
        self, store: Store, clock: Clock
    ) -> None:
        before = RedisBatches(store.redis, [RETIRED], 1)
        await before.sweep(None, force=True)
        await store.create()
        [claim] = await store.run(endpoint=RETIRED)
        clock.advance_s(16)
        # The first sweep learns of the endpoint, the next one looks there.
        assert RETIRED in (await sweep(store)).endpoints
        [found] = (await sweep(store)).leases
        assert (found.endpoint, found.ref) == (RETIRED.id, claim.ref)


class TestModels:
    async def test_only_models_with_work_to_hand_out_are_named(self, store: Store) -> None:
        assert (await sweep(store)).models == []
        await store.create({"llama-70b": [4]})
        assert (await sweep(store)).models == ["llama-70b"]

    async def test_a_delayed_retry_is_work_once_it_is_due(self, store: Store, clock: Clock) -> None:
        await store.create()
        [claim] = await store.claim()
        await store.requeue(claim.ref, delay_ms=5000)
        await store.claim()
        assert (await sweep(store)).models == []
        clock.advance_s(6)
        assert (await sweep(store)).models == ["mistral"]

    async def test_a_model_whose_endpoint_rests_is_not_named(self, store: Store) -> None:
        await store.create({"mistral": [4], "llama-70b": [4]})
        await store.queue.rest(MISTRAL, 60)
        assert (await sweep(store)).models == ["llama-70b"]


class TestExpired:
    async def test_batches_past_their_time_are_found_until_they_end(self, store: Store, clock: Clock) -> None:
        early = await store.create(expires_in_ms=10_000)
        await store.create(expires_in_ms=60_000)
        assert (await sweep(store)).expired == []
        clock.advance_s(11)
        assert (await sweep(store)).expired == [early.id]
        await store.batches.stop(early.id, "expired")
        assert (await sweep(store)).expired == []

    async def test_one_whose_records_are_gone_is_forgotten_by_its_stop(
        self, store: Store, clock: Clock
    ) -> None:
        batch = await store.create(expires_in_ms=10_000)
        await store.redis.execute("DEL", keys.batch(batch.id))
        clock.advance_s(11)
        assert (await sweep(store)).expired == [batch.id]
        assert (await store.batches.stop(batch.id, "expired")).verdict == "gone"
        assert (await sweep(store)).expired == []
