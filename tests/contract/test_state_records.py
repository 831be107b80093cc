"""Deleting in two steps, and what every key has: an end."""

from collections.abc import Awaitable, Callable

import pytest

from shared.adapters import keys
from shared.ports.state import ShardRef
from tests.contract.state import MISTRAL, Store, lease, new_id, outcome


async def ended(store: Store) -> str:
    batch = await store.create({"mistral": [4, 4]})
    for _ in range(2):
        [claim] = await store.run(1)
        await store.settle(claim.ref, 1, outcome(4))
    return batch.id


class TestDelete:
    async def test_only_an_ended_batch_can_go(self, store: Store) -> None:
        batch = await store.create()
        before = await store.dump()
        assert (await store.batches.delete(batch.id, "mark")).verdict == "open"
        assert await store.dump() == before

    async def test_an_unknown_batch_is_gone(self, store: Store) -> None:
        assert (await store.batches.delete(new_id(), "mark")).verdict == "gone"

    async def test_the_mark_hides_it_and_its_records_still_say_what_to_remove(self, store: Store) -> None:
        batch = await store.create({"mistral": [4, 4]})
        one, two = await store.run()
        await store.start(one)
        await store.settle(one.ref, 2, outcome(4))
        await store.settle(two.ref, 1, outcome(4))
        deletion = await store.batches.delete(batch.id, "mark")
        assert (deletion.verdict, deletion.nonce) == ("marked", batch.nonce)
        assert await store.batches.part_totals(batch.id) == [8]
        records = await store.batches.shards(batch.id, range(2))
        assert {number: shard.epoch for number, shard in records.items()} == {0: 2, 1: 1}
        assert (await store.batches.sweep(batch.id)).batch is None

    async def test_a_deletion_that_was_cut_short_is_resumed(self, store: Store) -> None:
        batch_id = await ended(store)
        first = await store.batches.delete(batch_id, "mark")
        assert await store.batches.delete(batch_id, "mark") == first

    async def test_the_end_leaves_no_record_and_is_answered_alike_for_an_hour(self, store: Store) -> None:
        batch_id = await ended(store)
        await store.batches.delete(batch_id, "mark")
        for _ in range(2):
            assert (await store.batches.delete(batch_id, "finish")).verdict == "done"
        ttls_ms = await store.ttls_ms()
        assert {keys.batch(batch_id), keys.shards(batch_id), keys.plan(batch_id)}.isdisjoint(ttls_ms)
        assert 3_500_000 < ttls_ms[keys.deleted(batch_id)] <= 3_600_000
        assert (await store.batches.delete(batch_id, "mark")).verdict == "done"
        assert await store.redis.execute("ZCARD", keys.BATCHES) == 0


Step = Callable[[Store], Awaitable[object]]


async def settle_a_shard(store: Store) -> None:
    await store.create({"mistral": [4, 4]}, idempotency_key="k", body_hash="h")
    [claim] = await store.run(1)
    await store.beat(claim.ref, 1, succeeded=1)
    await store.settle(claim.ref, 1, outcome(4, output_tokens=9))


async def end_a_batch(store: Store) -> None:
    await ended(store)


async def delete_a_batch(store: Store) -> None:
    batch_id = await ended(store)
    await store.batches.delete(batch_id, "mark")
    await store.batches.delete(batch_id, "finish")


async def requeue_at_once(store: Store) -> None:
    await store.create()
    [claim] = await store.run()
    await store.requeue(claim.ref)
    await store.claim()


async def requeue_later(store: Store) -> None:
    await store.create()
    [claim] = await store.run()
    await store.requeue(claim.ref, delay_ms=60_000)


async def refuse_a_job(store: Store) -> None:
    await store.queue.rest(MISTRAL, 5)
    await store.queue.publish_capacity(MISTRAL, 4)


async def repair_a_lease(store: Store) -> None:
    await store.create()
    [claim] = await store.run()
    await store.repairs.inspect(lease(claim.ref))
    await store.repairs.renew(lease(claim.ref), 1000)
    await store.repairs.drop(lease(claim.ref))


async def drain_an_inbox(store: Store) -> None:
    await store.redis.execute("RPUSH", keys.INBOXES[0], *(["hint"] * 30))
    await store.batches.sweep(None, force=True)


@pytest.mark.parametrize(
    "steps",
    [
        settle_a_shard,
        end_a_batch,
        delete_a_batch,
        requeue_at_once,
        requeue_later,
        refuse_a_job,
        repair_a_lease,
        drain_an_inbox,
    ],
    ids=lambda steps: steps.__name__,
)
async def test_every_key_has_an_end(store: Store, steps: Step) -> None:
    await steps(store)
    ttls_ms = await store.ttls_ms()
    assert ttls_ms
    assert [name for name, ttl_ms in ttls_ms.items() if ttl_ms < 0] == []


async def test_the_keys_of_a_batch_end_with_its_retention(store: Store) -> None:
    batch = await store.create(expires_in_ms=3_600_000, retain_ms=3_600_000)
    [claim] = await store.run()
    await store.settle(claim.ref, 1, outcome(4))
    ttls_ms = await store.ttls_ms()
    own = [keys.batch(batch.id), keys.shards(batch.id), "payload:test:out:0:1"]
    assert all(7_190_000 < ttls_ms[name] <= 7_200_000 for name in own)


async def test_the_records_of_shards_are_only_those_handed_out(store: Store) -> None:
    batch = await store.create({"mistral": [4] * 5})
    await store.claim(2)
    assert set(await store.batches.shards(batch.id, range(5))) == {0, 1}
    assert await store.batches.shards(batch.id, []) == {}
    assert await store.shard(ShardRef(new_id(), 0)) is None
