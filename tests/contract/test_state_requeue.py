"""Giving a shard back, by whoever saw it lost, and the leases that lead there; each safe to send twice."""

from shared.adapters import keys
from shared.core.lifecycle import BatchPhase, ShardState
from shared.ports.state import Claim, ShardRef, claimed
from tests.conftest import Clock
from tests.contract.state import MISTRAL, Store, lease, new_id, outcome

NO_COUNTS = {"total": 4, "succeeded": 0, "errored": 0, "pending": 4}


async def run_one(store: Store) -> Claim:
    await store.create()
    [claim] = await store.run()
    return claim


class TestRequeue:
    async def test_live_counts_are_taken_back(self, store: Store) -> None:
        claim = await run_one(store)
        await store.beat(claim.ref, 1, succeeded=2, errored=1)
        assert await store.requeue(claim.ref, blame=True) == "queued"
        assert await store.counts(claim.ref.batch) == NO_COUNTS
        assert await store.leases() == (set(), set())
        assert (await store.batch(claim.ref.batch)).deaths == 1

    async def test_of_two_repairs_that_saw_the_same_one_wins(self, store: Store) -> None:
        claim = await run_one(store)
        seen = await store.shard(claim.ref)
        assert seen is not None
        verdicts = [
            await store.repairs.requeue(claim.ref, seen, delay_ms=0, blame=True, message="") for _ in range(2)
        ]
        assert verdicts == ["queued", "changed"]
        assert (await store.batch(claim.ref.batch)).deaths == 1
        await store.redis.execute("DEL", keys.rest(MISTRAL.id))
        assert len(await store.claim()) == 1

    async def test_a_beat_in_between_saves_the_shard(self, store: Store, clock: Clock) -> None:
        claim = await run_one(store)
        seen = await store.shard(claim.ref)
        assert seen is not None
        clock.advance_s(1)
        await store.beat(claim.ref, 1)
        verdict = await store.repairs.requeue(claim.ref, seen, delay_ms=0, blame=True, message="")
        assert verdict == "changed"
        assert await store.state(claim.ref) is ShardState.RUNNING

    async def test_a_new_epoch_in_between_saves_the_shard(self, store: Store) -> None:
        claim = await run_one(store)
        seen = await store.shard(claim.ref)
        assert seen is not None
        await store.start(claim)
        verdict = await store.repairs.requeue(claim.ref, seen, delay_ms=0, blame=True, message="")
        assert verdict == "changed"

    async def test_a_refused_submission_gives_its_claim_back(self, store: Store) -> None:
        await store.create()
        [claim] = await store.claim()
        seen = claimed(claim.ref, MISTRAL, claim.attempt, claim.requests)
        verdict = await store.repairs.requeue(claim.ref, seen, delay_ms=0, blame=False, message="")
        assert verdict == "queued"
        [again] = await store.claim()
        assert (again.ref, again.attempt, again.requests) == (claim.ref, 2, claim.requests)

    async def test_a_refused_submission_gives_nothing_back_once_its_job_began(self, store: Store) -> None:
        claim = await run_one(store)
        seen = claimed(claim.ref, MISTRAL, claim.attempt, claim.requests)
        assert (
            await store.repairs.requeue(claim.ref, seen, delay_ms=0, blame=False, message="")
        ) == "changed"

    async def test_one_death_too_many_is_errored_with_the_reason(self, store: Store) -> None:
        await store.prove()
        batch = await store.create({"mistral": [1, 4]})
        ref = ShardRef(batch.id, 0)
        verdicts: list[str] = []
        for death in range(1, 5):
            await store.run(1)
            verdicts.append(await store.requeue(ref, blame=True, message=f"death {death}"))
        assert verdicts == ["queued", "queued", "queued", "errored"]
        shard = await store.shard(ref)
        assert shard is not None
        assert (shard.state, shard.outcome, shard.error) == (ShardState.SETTLED, "errored", "death 4")
        assert await store.counts(ref.batch) == {"total": 5, "succeeded": 0, "errored": 1, "pending": 4}

    async def test_what_is_not_blamed_may_go_on_for_ever(self, store: Store) -> None:
        await store.create()
        for _ in range(9):
            [claim] = await store.run(1)
            assert await store.requeue(claim.ref) == "queued"

    async def test_in_a_stopped_batch_it_settles(self, store: Store) -> None:
        claim = await run_one(store)
        await store.batches.stop(claim.ref.batch, "canceled")
        await store.beat(claim.ref, 1, succeeded=2)
        assert await store.requeue(claim.ref, blame=True) == "canceled"
        record = await store.batch(claim.ref.batch)
        assert (record.phase, record.settled["canceled"]) == (BatchPhase.ENDED, 4)
        assert not await store.settle(claim.ref, 1, outcome(4))


class TestRepairs:
    async def test_a_lease_says_what_it_stands_for(self, store: Store, clock: Clock) -> None:
        batch = await store.create()
        [claim] = await store.run()
        clock.advance_s(5)
        found = await store.repairs.inspect(lease(claim.ref))
        assert found.shard == await store.shard(claim.ref)
        assert found.shard is not None
        assert (found.nonce, found.now_ms // 1000 - found.shard.beat_ms // 1000) == (batch.nonce, 5)

    async def test_a_renewed_lease_is_overdue_again_later(self, store: Store, clock: Clock) -> None:
        claim = await run_one(store)
        await store.repairs.renew(lease(claim.ref), 60_000)
        clock.advance_s(59)
        assert await overdue(store) == []
        clock.advance_s(2)
        assert await overdue(store) == [claim.ref]

    async def test_renewing_makes_no_lease(self, store: Store) -> None:
        claim = await run_one(store)
        await store.settle(claim.ref, 1, outcome(4))
        await store.repairs.renew(lease(claim.ref), 1000)
        assert await store.leases() == (set(), set())

    async def test_a_lease_is_dropped_only_where_it_stands_for_nothing(self, store: Store) -> None:
        claim = await run_one(store)
        await store.repairs.drop(lease(claim.ref))
        assert await store.leases() == (set(), {keys.lease(claim.ref.batch, 0)})
        await store.settle(claim.ref, 1, outcome(4))
        await store.redis.execute("ZADD", keys.waiting(MISTRAL.id), 1, keys.lease(claim.ref.batch, 0))
        await store.repairs.drop(lease(claim.ref))
        assert await store.leases() == (set(), set())

    async def test_a_lease_of_an_unknown_batch_is_dropped_by_the_look_at_it(self, store: Store) -> None:
        ghost = ShardRef(new_id(), 3)
        await store.redis.execute("ZADD", keys.running(MISTRAL.id), 1, keys.lease(ghost.batch, 3))
        assert (await store.repairs.inspect(lease(ghost))).shard is None
        assert await store.leases() == (set(), set())


async def overdue(store: Store) -> list[ShardRef]:
    work = (await store.batches.sweep(None, force=True)).work
    assert work is not None
    return [item.ref for item in work.leases]
