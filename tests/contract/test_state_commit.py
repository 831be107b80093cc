"""`commit` and the idempotency key: one batch per key, and nothing twice after a lost reply."""

import json
from dataclasses import replace

from shared.adapters import keys
from shared.core.lifecycle import BatchPhase
from tests.contract.state import HOUR_MS, Store, new_batch, new_id


async def test_a_committed_batch_reads_back_as_it_was_given(store: Store) -> None:
    batch = await store.create({"mistral": [4, 4, 2], "llama-70b": [8]}, priority="high", weight=4.0)
    record = await store.batch(batch.id)
    assert (record.phase, record.total, record.nonce) == (BatchPhase.COLLECTED, 18, batch.nonce)
    assert (record.stage, record.priority, record.models) == (
        "email",
        "high",
        {"mistral": 10, "llama-70b": 8},
    )
    assert record.expires_ms - record.created_ms == batch.expires_in_ms
    assert record.keep_until_ms - record.expires_ms == batch.retain_ms
    assert record.ended_ms is None
    assert await store.batches.part_totals(batch.id) == [18]
    assert await store.batches.part(batch.id, 0) == batch.parts[0]
    assert await store.batches.part(batch.id, 1) is None
    assert await store.counts(batch.id) == {"total": 18, "succeeded": 0, "errored": 0, "pending": 18}


async def test_a_resent_commit_makes_nothing_new(store: Store) -> None:
    batch = await store.create()
    before = await store.dump()
    assert (await store.batches.commit(batch)).verdict == "created"
    assert await store.dump() == before


async def test_a_resent_commit_with_a_key_finds_its_own_batch(store: Store) -> None:
    batch = await store.create(idempotency_key="k", body_hash="h")
    before = await store.dump()
    again = await store.batches.commit(batch)
    assert (again.verdict, again.id) == ("existing", batch.id)
    assert await store.dump() == before


async def test_a_free_key_is_not_found(store: Store) -> None:
    assert await store.batches.find_key("k", "h") is None


async def test_a_key_gives_the_batch_it_made_and_tells_another_body_apart(store: Store) -> None:
    first = await store.create(idempotency_key="k", body_hash="h")
    loser = new_batch(idempotency_key="k", body_hash="h")
    other = new_batch(idempotency_key="k", body_hash="other")
    for batch, verdict in ((loser, "existing"), (other, "mismatch")):
        found = await store.batches.find_key("k", batch.body_hash or "")
        assert found is not None
        assert (found.verdict, found.id) == (verdict, first.id)
        committed = await store.batches.commit(batch)
        assert (committed.verdict, committed.id) == (verdict, first.id)
        assert (await store.batches.sweep(batch.id)).batch is None
    assert await store.redis.execute("ZCARD", keys.BATCHES) == 1


async def test_an_idempotency_key_outlives_the_delete(store: Store) -> None:
    batch = await store.create(idempotency_key="k", body_hash="h")
    await store.batches.stop(batch.id, "canceled")
    await store.batches.delete(batch.id, "mark")
    await store.batches.delete(batch.id, "finish")
    found = await store.batches.find_key("k", "h")
    assert found is not None
    assert (found.verdict, found.id) == ("existing", batch.id)
    again = await store.batches.commit(replace(batch, id=new_id()))
    assert (again.verdict, again.id) == ("existing", batch.id)


async def test_a_key_lives_as_long_as_its_batch(store: Store) -> None:
    batch = await store.create(idempotency_key="k", body_hash="h", expires_in_ms=HOUR_MS, retain_ms=HOUR_MS)
    ttls_ms = await store.ttls_ms()
    assert abs(ttls_ms[keys.idempotency("k")] - ttls_ms[keys.batch(batch.id)]) < 10_000
    assert abs(ttls_ms[keys.batch(batch.id)] - 2 * HOUR_MS) < 10_000


async def test_a_commit_is_as_small_as_its_plan_and_no_larger_for_many_shards(store: Store) -> None:
    small = await store.create({"mistral": [32]})
    large = await store.create({"mistral": [32] * 3000})
    sizes = [
        len(json.dumps(await store.redis.execute("HGETALL", keys.batch(batch.id))))
        for batch in (small, large)
    ]
    assert sizes[1] - sizes[0] < 50
