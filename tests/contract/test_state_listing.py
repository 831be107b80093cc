"""Listing pages: newest first, without gaps or repeats."""

import pytest

from shared.adapters import keys, redis_listing
from shared.errors import InvalidRequest
from tests.conftest import Clock
from tests.contract.state import Store, outcome


async def ended(store: Store) -> str:
    batch = await store.create()
    [claim] = await store.run()
    await store.settle(claim.ref, 1, outcome(4))
    return batch.id


async def pages(store: Store, limit: int) -> list[str]:
    listed: list[str] = []
    token: str | None = None
    while True:
        records, token = await store.batches.listing(limit, token)
        listed += [record.id for record in records]
        if token is None:
            return listed


async def test_pages_go_newest_first_without_gaps_or_repeats(store: Store, clock: Clock) -> None:
    created: list[str] = []
    for _ in range(7):
        created.append((await store.create()).id)
        clock.advance_s(1)
    assert await pages(store, 3) == created[::-1]


async def test_batches_of_the_same_millisecond_neither_repeat_nor_hide(store: Store) -> None:
    created = [(await store.create()).id for _ in range(9)]
    at = int(await store.redis.execute("ZSCORE", keys.BATCHES, created[0]))
    for number, batch_id in enumerate(created):
        await store.redis.execute("ZADD", keys.BATCHES, at + number // 8, batch_id)
    listed = await pages(store, 2)
    assert sorted(listed) == sorted(created)
    assert listed[0] == created[8]


async def test_a_last_full_page_names_no_next_one(store: Store) -> None:
    for _ in range(2):
        await store.create()
    records, token = await store.batches.listing(2, None)
    assert (len(records), token) == (2, None)


async def test_a_page_skips_what_is_being_deleted(store: Store) -> None:
    batch_id = await ended(store)
    other = await store.create()
    await store.batches.delete(batch_id, "mark")
    records, _ = await store.batches.listing(10, None)
    assert [record.id for record in records] == [other.id]


@pytest.mark.parametrize("token", ["x", "12", "12:", ":batch_1", "-1:batch_1", "1.5:b"])
async def test_a_token_that_no_page_gave_is_refused(store: Store, token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await store.batches.listing(2, token)
    assert caught.value.param == "page"


async def test_a_list_goes_back_to_newer_batches(store: Store, clock: Clock) -> None:
    created: list[str] = []
    for _ in range(6):
        created.insert(0, (await store.create()).id)
        clock.advance_s(1)
    token = await store.batches.place(created[4], newer=True)
    records, token = await store.batches.listing(3, token)
    assert [record.id for record in records] == created[1:4]
    records, token = await store.batches.listing(3, token)
    assert ([record.id for record in records], token) == (created[:1], None)


async def test_a_place_is_beside_its_batch_even_in_one_millisecond(store: Store) -> None:
    created = sorted([(await store.create()).id for _ in range(5)], reverse=True)
    at = int(await store.redis.execute("ZSCORE", keys.BATCHES, created[0]))
    for batch_id in created:
        await store.redis.execute("ZADD", keys.BATCHES, at, batch_id)
    older = await store.batches.place(created[2], newer=False)
    newer = await store.batches.place(created[2], newer=True)
    assert [record.id for record in (await store.batches.listing(9, older))[0]] == created[3:]
    assert [record.id for record in (await store.batches.listing(9, newer))[0]] == created[:2]


async def test_a_deleted_batch_keeps_its_place(store: Store, clock: Clock) -> None:
    older = await ended(store)
    clock.advance_s(1)
    batch_id = await ended(store)
    clock.advance_s(1)
    await store.create()
    for step in ("mark", "finish"):
        await store.batches.delete(batch_id, step)
    token = await store.batches.place(batch_id, newer=False)
    records, _ = await store.batches.listing(9, token)
    assert [record.id for record in records] == [older]


async def test_nobody_knows_the_place_of_a_batch_that_never_was(store: Store) -> None:
    assert await store.batches.place("batch_" + 24 * "0", newer=True) is None


async def test_a_page_is_full_whatever_is_gone_between_its_batches(store: Store, clock: Clock) -> None:
    created: list[str] = []
    for number in range(12):
        created.insert(0, (await store.create()).id)
        clock.advance_s(1)
        if number % 3:
            await store.redis.execute("DEL", keys.batch(created[0]))
    living = created[2::3]
    assert await pages(store, 2) == living
    records, token = await store.batches.listing(4, None)
    assert ([record.id for record in records], token) == (living, None)


async def test_a_list_passes_so_many_that_are_gone_and_goes_on_from_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_listing, "PASSED_PER_READ", 3)
    monkeypatch.setattr(redis_listing, "READS_MAX", 2)
    oldest = (await store.create()).id
    at = int(await store.redis.execute("ZSCORE", keys.BATCHES, oldest))
    for number in range(1, 20):
        await store.redis.execute("ZADD", keys.BATCHES, at + number, f"batch_{number:024x}")
    records, token = await store.batches.listing(2, None)
    assert records == []
    assert token is not None
    assert await pages(store, 2) == [oldest]
