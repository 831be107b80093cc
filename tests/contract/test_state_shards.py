"""One shard at a time: submission, the fence of epochs, beats and settling, each safe to send twice."""

import pytest

from shared.adapters import keys
from shared.core.lifecycle import BatchPhase, ShardState
from shared.ports.state import Claim, Progress, ShardRef, Submitted
from tests.conftest import Clock
from tests.contract.state import MISTRAL, Store, job_of, lease, outcome

STALE_S = 31
NO_COUNTS = {"total": 4, "succeeded": 0, "errored": 0, "pending": 4}


async def run_one(store: Store) -> Claim:
    await store.create()
    [claim] = await store.run()
    return claim


class TestRecord:
    async def test_a_recorded_job_waits_at_its_endpoint(self, store: Store) -> None:
        batch = await store.create()
        [claim] = await store.submit()
        shard = await store.shard(claim.ref)
        assert shard is not None
        assert (shard.state, shard.job, shard.attempt, shard.epoch) == (
            ShardState.SUBMITTED,
            job_of(claim),
            1,
            0,
        )
        assert (await store.batch(batch.id)).phase is BatchPhase.SUBMITTED
        assert await store.leases() == ({keys.lease(batch.id, 0)}, set())

    async def test_a_resend_changes_nothing(self, store: Store) -> None:
        await store.create()
        [claim] = await store.submit()
        before = await store.dump()
        await store.queue.record(MISTRAL, [Submitted(claim.ref, claim.attempt, job_of(claim))])
        assert await store.dump() == before

    async def test_it_never_overwrites_a_start_that_came_first(self, store: Store) -> None:
        await store.create()
        [claim] = await store.claim()
        await store.start(claim, job="quick")
        await store.queue.record(MISTRAL, [Submitted(claim.ref, claim.attempt, "quick")])
        shard = await store.shard(claim.ref)
        assert shard is not None
        assert (shard.state, shard.job) == (ShardState.RUNNING, "quick")

    async def test_an_old_attempts_job_is_not_recorded(self, store: Store) -> None:
        await store.create()
        [claim] = await store.claim()
        await store.requeue(claim.ref)
        [second] = await store.claim()
        await store.queue.record(MISTRAL, [Submitted(claim.ref, claim.attempt, "old")])
        shard = await store.shard(second.ref)
        assert shard is not None
        assert (shard.state, shard.job, shard.attempt) == (ShardState.CLAIMED, "", 2)


class TestStart:
    async def test_it_mints_an_epoch_and_moves_the_lease(self, store: Store) -> None:
        batch = await store.create()
        [claim] = await store.submit()
        started = await store.start(claim)
        assert (started.verdict, started.epoch, started.nonce, started.requests) == ("run", 1, batch.nonce, 4)
        assert started.head.endswith(batch.id)
        assert (await store.batch(batch.id)).phase is BatchPhase.PROCESSING
        assert await store.leases() == (set(), {keys.lease(batch.id, 0)})

    async def test_the_same_job_takes_over_at_once_and_fences_its_first_run(self, store: Store) -> None:
        claim = await run_one(store)
        assert await store.beat(claim.ref, 1, succeeded=2) == "ok"
        again = await store.start(claim, worker="w2")
        assert (again.verdict, again.epoch) == ("run", 2)
        assert await store.counts(claim.ref.batch) == NO_COUNTS
        assert await store.beat(claim.ref, 1, succeeded=3) == "lost"
        assert not await store.settle(claim.ref, 1, outcome(4))
        assert await store.counts(claim.ref.batch) == NO_COUNTS
        assert await store.settle(claim.ref, 2, outcome(4))

    async def test_another_job_of_the_attempt_is_refused_while_the_beat_is_fresh(
        self, store: Store, clock: Clock
    ) -> None:
        claim = await run_one(store)
        clock.advance_s(STALE_S - 2)
        assert (await store.start(claim, job="other")).verdict == "busy"
        assert await store.beat(claim.ref, 1) == "ok"

    async def test_another_job_of_the_attempt_takes_over_a_stale_beat(
        self, store: Store, clock: Clock
    ) -> None:
        claim = await run_one(store)
        clock.advance_s(STALE_S)
        started = await store.start(claim, job="other")
        assert (started.verdict, started.epoch) == ("run", 2)

    async def test_a_takeover_counts_as_a_death_and_one_too_many_is_errored(self, store: Store) -> None:
        await store.prove()
        await store.create({"mistral": [1]})
        for _ in range(2):
            await store.die()
        [claim] = await store.run()
        started = await store.start(claim)
        assert (started.verdict, started.epoch) == ("run", 4)
        assert (await store.start(claim)).verdict == "errored"
        shard = await store.shard(claim.ref)
        assert shard is not None
        assert (shard.state, shard.outcome) == (ShardState.SETTLED, "errored")
        assert shard.error.startswith("Its worker died")
        record = await store.batch(claim.ref.batch)
        assert (record.deaths, record.phase, record.settled["errored"]) == (4, BatchPhase.ENDED, 1)
        assert await store.leases() == (set(), set())

    async def test_an_old_attempt_is_refused(self, store: Store) -> None:
        claim = await run_one(store)
        await store.requeue(claim.ref)
        assert (await store.start(claim)).verdict == "stale"
        [second] = await store.submit()
        assert (await store.start(claim)).verdict == "stale"
        assert (await store.start(second)).epoch == 2

    async def test_a_settled_shard_is_refused(self, store: Store) -> None:
        claim = await run_one(store)
        await store.settle(claim.ref, 1, outcome(4))
        assert (await store.start(claim)).verdict == "settled"

    async def test_a_shard_that_was_never_handed_out_is_refused(self, store: Store) -> None:
        batch = await store.create()
        assert (await store.runs.start(ShardRef(batch.id, 0), 1, "j", "w", MISTRAL)).verdict == "stale"


class TestBeat:
    async def test_it_reports_progress_live_and_renews_the_lease(self, store: Store, clock: Clock) -> None:
        claim = await run_one(store)
        member = keys.lease(claim.ref.batch, claim.ref.shard)
        first = float(await store.redis.execute("ZSCORE", keys.running(MISTRAL.id), member))
        clock.advance_s(10)
        assert await store.beat(claim.ref, 1, succeeded=2, errored=1) == "ok"
        assert await store.counts(claim.ref.batch) == {"total": 4, "succeeded": 2, "errored": 1, "pending": 1}
        assert float(await store.redis.execute("ZSCORE", keys.running(MISTRAL.id), member)) >= first + 10_000

    async def test_a_resend_counts_nothing_twice(self, store: Store) -> None:
        claim = await run_one(store)
        for _ in range(2):
            assert await store.beat(claim.ref, 1, succeeded=2) == "ok"
        assert (await store.counts(claim.ref.batch))["succeeded"] == 2

    async def test_one_call_beats_for_shards_of_many_batches(self, store: Store) -> None:
        await store.create()
        await store.create()
        first, second = await store.run()
        await store.settle(first.ref, 1, outcome(4))
        items = [Progress(first.ref, 1, 4, 0), Progress(second.ref, 1, 1, 0)]
        assert await store.runs.beat(MISTRAL, items) == ["lost", "ok"]

    async def test_it_tells_of_a_cancel_and_of_expiry(self, store: Store, clock: Clock) -> None:
        claim = await run_one(store)
        clock.advance_s(24 * 3600 + 1)
        assert await store.beat(claim.ref, 1) == "expired"
        await store.batches.stop(claim.ref.batch, "canceled")
        assert await store.beat(claim.ref, 1) == "canceled"


class TestSettle:
    async def test_the_last_shard_ends_the_batch(self, store: Store) -> None:
        batch = await store.create({"mistral": [4, 2]})
        one, two = await store.run()
        tokens = {"input_tokens": 10, "output_tokens": 20, "gpu_ms": 30}
        assert await store.settle(one.ref, 1, outcome(3, errored=1, **tokens))
        assert (await store.batch(batch.id)).phase is BatchPhase.PROCESSING
        assert await store.settle(two.ref, 1, outcome(2, **tokens))
        record = await store.batch(batch.id)
        assert record.phase is BatchPhase.ENDED
        assert record.ended_ms is not None
        assert (record.input_tokens, record.output_tokens, record.gpu_ms) == (20, 40, 60)
        assert await store.counts(batch.id) == {"total": 6, "succeeded": 5, "errored": 1, "pending": 0}
        assert await store.redis.execute("ZCARD", keys.OPEN) == 0
        assert await store.leases() == (set(), set())

    async def test_live_counts_become_final_ones(self, store: Store) -> None:
        claim = await run_one(store)
        await store.beat(claim.ref, 1, succeeded=3)
        await store.settle(claim.ref, 1, outcome(4))
        record = await store.batch(claim.ref.batch)
        assert record.live == {"succeeded": 0, "errored": 0}
        assert (await store.counts(claim.ref.batch))["succeeded"] == 4

    async def test_a_resend_is_answered_alike_and_counts_once(self, store: Store) -> None:
        claim = await run_one(store)
        for _ in range(2):
            assert await store.settle(claim.ref, 1, outcome(4, output_tokens=7))
        record = await store.batch(claim.ref.batch)
        assert (record.settled["succeeded"], record.output_tokens) == (4, 7)
        assert int(await store.redis.execute("HGET", keys.metrics("mistral"), "output_tokens")) == 7

    async def test_the_first_wins_and_settled_never_changes(self, store: Store) -> None:
        claim = await run_one(store)
        await store.settle(claim.ref, 1, outcome(4))
        before = await store.dump()
        assert not await store.settle(claim.ref, 2, outcome(errored=4))
        assert await store.beat(claim.ref, 1, succeeded=1) == "lost"
        assert await store.dump() == before

    async def test_an_output_that_travels_along_is_stored_in_the_same_step(self, store: Store) -> None:
        claim = await run_one(store)
        await store.settle(claim.ref, 1, outcome(4), inline="the output")
        assert await store.redis.execute("GET", "payload:test:out:0:1") == "the output"

    async def test_a_lost_epoch_stores_no_output(self, store: Store) -> None:
        claim = await run_one(store)
        await store.start(claim)
        await store.settle(claim.ref, 1, outcome(4), inline="late")
        assert await store.redis.execute("GET", "payload:test:out:0:1") is None


@pytest.mark.parametrize("deleted", [False, True], ids=["unknown", "deleted"])
async def test_every_step_on_a_batch_that_is_gone_says_so_and_stores_nothing(
    store: Store, deleted: bool
) -> None:
    batch = await store.create()
    [claim] = await store.run()
    ref, seen = claim.ref, await store.shard(claim.ref)
    assert seen is not None
    assert await store.settle(ref, 1, outcome(4))
    await store.batches.delete(batch.id, "mark")
    if deleted:
        await store.batches.delete(batch.id, "finish")
    else:
        await store.redis.execute("DEL", keys.batch(batch.id), keys.shards(batch.id))
    before = set(await store.ttls_ms())
    await store.queue.record(MISTRAL, [Submitted(ref, claim.attempt, "job")])
    assert (await store.start(claim)).verdict == "gone"
    assert await store.beat(ref, 1, succeeded=1) == "lost"
    assert not await store.settle(ref, 1, outcome(4))
    assert await store.repairs.requeue(ref, seen, delay_ms=5, blame=True, message="") == "gone"
    assert (await store.repairs.inspect(lease(ref))).shard is None
    await store.repairs.renew(lease(ref), 1000)
    await store.repairs.drop(lease(ref))
    assert (await store.batches.stop(batch.id, "canceled")).verdict == "gone"
    assert (await store.batches.sweep(batch.id)).batch is None
    assert await store.claim() == []
    assert set(await store.ttls_ms()) - {keys.TICK, keys.ENDPOINTS} <= before
