"""Callbacks in the store: due when their batch ends, given to one caller at a time, and over once."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.adapters import keys
from shared.adapters.redis_batches import CALLBACK_LEASE_MS, CALLBACKS_PER_SWEEP, RedisBatches
from shared.core.callbacks import Noted
from shared.core.shards import CallbackRecord
from shared.ports.state import NewBatch
from tests.conftest import Clock
from tests.contract.state import ENDPOINTS, HOUR_MS, Store, outcome

URL = "https://hooks.example.com/ended?token=hidden"
LEASE_S = CALLBACK_LEASE_MS / 1000
LATER = Noted("pending", "the receiver answered 500", 5000)


async def settle(store: Store, batch: NewBatch) -> None:
    [claim] = await store.run()
    assert await store.settle(claim.ref, 1, outcome(4))


async def cancel(store: Store, batch: NewBatch) -> None:
    assert (await store.batches.stop(batch.id, "canceled")).verdict == "stopped"


async def start_after_cancel(store: Store, batch: NewBatch) -> None:
    [claim] = await store.run()
    await store.batches.stop(batch.id, "canceled")
    assert (await store.start(claim, worker="w2")).verdict == "canceled"


async def requeue_after_cancel(store: Store, batch: NewBatch) -> None:
    [claim] = await store.run()
    await store.batches.stop(batch.id, "canceled")
    assert await store.requeue(claim.ref) == "canceled"


ENDS = [settle, cancel, start_after_cancel, requeue_after_cancel]


async def due(store: Store) -> list[str]:
    work = (await store.batches.sweep(None, force=True)).work
    assert work is not None
    return list(work.callbacks)


async def told(store: Store, batch: NewBatch) -> CallbackRecord:
    callback = (await store.batch(batch.id)).callback
    assert callback is not None
    return callback


async def ended(store: Store, url: str | None = URL) -> NewBatch:
    batch = await store.create(callback_url=url)
    await cancel(store, batch)
    return batch


@pytest.mark.parametrize("end", ENDS, ids=lambda end: str(end.__name__))
async def test_a_callback_is_due_as_soon_as_its_batch_ends_however_it_does(
    store: Store, end: Callable[[Store, NewBatch], Awaitable[None]]
) -> None:
    batch = await store.create(callback_url=URL)
    assert await due(store) == []
    assert await told(store, batch) == CallbackRecord(URL)
    await end(store, batch)
    assert await due(store) == [batch.id]


async def test_a_batch_without_a_callback_has_nothing_due(store: Store) -> None:
    batch = await ended(store, None)
    assert await due(store) == []
    assert (await store.batch(batch.id)).callback is None
    assert await store.callbacks.load(batch.id) is None


async def test_of_many_sweeps_at_once_one_is_given_it_and_another_only_later(
    store: Store, clock: Clock
) -> None:
    batch = await ended(store)
    given = await asyncio.gather(*(due(store) for _ in range(8)))
    assert sorted(given) == [*([[]] * 7), [batch.id]]
    clock.advance_s(LEASE_S - 5)
    assert await due(store) == []
    clock.advance_s(10)
    assert await due(store) == [batch.id]


async def test_some_at_a_time_the_oldest_first(store: Store, clock: Clock) -> None:
    batches = []
    for _ in range(CALLBACKS_PER_SWEEP + 2):
        batches.append((await ended(store)).id)
        clock.advance_s(1)
    assert await due(store) == batches[:CALLBACKS_PER_SWEEP]
    assert await due(store) == batches[CALLBACKS_PER_SWEEP:]


async def test_a_process_without_room_is_given_none(store: Store) -> None:
    batch = await ended(store)
    work = (await RedisBatches(store.redis, ENDPOINTS, 1, lambda: 0).sweep(None, force=True)).work
    assert work is not None
    assert work.callbacks == []
    assert await due(store) == [batch.id]


async def test_a_failed_attempt_is_due_again_after_its_wait(store: Store, clock: Clock) -> None:
    batch = await ended(store)
    assert await due(store) == [batch.id]
    await store.callbacks.note(batch.id, 1, LATER)
    assert await told(store, batch) == CallbackRecord(URL, "pending", 1, LATER.fault)
    assert await due(store) == []
    clock.advance_s(6)
    assert await due(store) == [batch.id]


@pytest.mark.parametrize("state", ["delivered", "failed"])
async def test_one_that_is_over_is_due_no_more(store: Store, clock: Clock, state: str) -> None:
    batch = await ended(store)
    await store.callbacks.note(batch.id, 1, LATER)
    await store.callbacks.note(batch.id, 2, Noted("delivered" if state == "delivered" else "failed", ""))
    assert await told(store, batch) == CallbackRecord(URL, state, 2, "")
    clock.advance_s(LEASE_S + 10)
    assert await due(store) == []
    assert await store.callbacks.load(batch.id) is None
    assert await store.redis.execute("EXISTS", keys.CALLBACKS) == 0


async def test_an_attempt_that_is_noted_twice_counts_once(store: Store) -> None:
    batch = await ended(store)
    await store.callbacks.note(batch.id, 1, LATER)
    before = await store.dump()
    await store.callbacks.note(batch.id, 1, LATER)
    assert await store.dump() == before


async def test_a_delivery_stands_whoever_failed_meanwhile_or_gave_up(store: Store) -> None:
    batch = await ended(store)
    await store.callbacks.note(batch.id, 1, Noted("failed", "the receiver answered 410"))
    await store.callbacks.note(batch.id, 1, Noted("delivered"))
    before = await store.dump()
    for number in (1, 2, 9):
        await store.callbacks.note(batch.id, number, LATER)
    assert await store.dump() == before
    assert (await told(store, batch)).state == "delivered"


async def test_what_would_wait_past_its_batchs_deadline_has_failed(store: Store, clock: Clock) -> None:
    batch = await store.create(callback_url=URL, expires_in_ms=HOUR_MS, retain_ms=HOUR_MS)
    await cancel(store, batch)
    clock.advance_s(6000)
    await store.callbacks.note(batch.id, 1, Noted("pending", "no answer", 1_000_000))
    assert (await told(store, batch)).state == "pending"
    await store.callbacks.note(batch.id, 2, Noted("pending", "no answer", 1_300_000))
    assert await told(store, batch) == CallbackRecord(URL, "failed", 2, "no answer")
    assert await store.redis.execute("EXISTS", keys.CALLBACKS) == 0


async def test_a_delete_drops_the_callback_and_nothing_late_brings_it_back(store: Store) -> None:
    batch = await ended(store)
    assert await due(store) == [batch.id]
    await store.batches.delete(batch.id, "mark")
    assert await store.redis.execute("EXISTS", keys.CALLBACKS) == 0
    for step in ("marked", "finished"):
        await store.callbacks.note(batch.id, 1, LATER)
        assert await store.callbacks.load(batch.id) is None, step
        assert await store.redis.execute("EXISTS", keys.CALLBACKS) == 0
        await store.batches.delete(batch.id, "finish")


async def test_one_whose_records_are_gone_is_forgotten_when_it_is_looked_at(store: Store) -> None:
    batch = await ended(store)
    await store.redis.execute("DEL", keys.batch(batch.id))
    assert await due(store) == [batch.id]
    assert await store.callbacks.load(batch.id) is None
    assert await store.redis.execute("EXISTS", keys.CALLBACKS) == 0


async def test_the_set_of_what_is_due_does_not_live_for_ever(store: Store) -> None:
    batch = await ended(store)
    assert 0 < (await store.ttls_ms())[keys.CALLBACKS] <= 60 * 24 * HOUR_MS
    await store.callbacks.note(batch.id, 1, LATER)
    assert 0 < (await store.ttls_ms())[keys.CALLBACKS] <= 60 * 24 * HOUR_MS
