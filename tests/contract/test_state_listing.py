"""Listing pages: newest first, without gaps or repeats."""

import pytest

from shared.adapters import keys
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
