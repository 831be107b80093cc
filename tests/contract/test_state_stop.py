"""Cancel and expiry: nothing more is handed out, what waits is settled, what runs ends by its own settle."""

import pytest

from shared.core.lifecycle import BatchPhase, ShardState
from shared.ports.state import ShardRef
from tests.conftest import Clock
from tests.contract.state import MISTRAL, Store, job_of, outcome

EXPIRY_S = 24 * 3600


async def test_a_cancel_settles_what_waits_and_leaves_what_runs(store: Store) -> None:
    # A running shard, a submitted one, a claimed one, one on the retry list, and one not handed out.
    batch = await store.create({"mistral": [1, 2, 4, 8, 16]})
    [running] = await store.run(1)
    [submitted] = await store.submit(1)
    [retried] = await store.claim(1)
    [claimed] = await store.claim(1)
    await store.requeue(retried.ref, delay_ms=60_000)
    await store.beat(running.ref, 1, succeeded=1)

    stopped = await store.batches.stop(batch.id, "canceled")

    assert stopped.verdict == "stopped"
    assert list(stopped.jobs) == [(MISTRAL.id, job_of(submitted))]
    assert await store.state(running.ref) is ShardState.RUNNING
    for claim in (submitted, retried, claimed):
        shard = await store.shard(claim.ref)
        assert shard is not None
        assert (shard.state, shard.outcome) == (ShardState.SETTLED, "canceled")
    assert await store.counts(batch.id) == {
        "total": 31,
        "succeeded": 1,
        "errored": 0,
        "pending": 0,
        "canceled": 30,
    }
    waiting, still_running = await store.leases()
    assert (len(waiting), len(still_running)) == (0, 1)
    assert await store.claim() == []
    assert (await store.batch(batch.id)).phase is BatchPhase.PROCESSING

    assert await store.beat(running.ref, 1, succeeded=1) == "canceled"
    assert await store.settle(running.ref, 1, outcome(1))
    assert (await store.batch(batch.id)).phase is BatchPhase.ENDED


async def test_a_running_shard_of_a_canceled_batch_settles_mixed(store: Store) -> None:
    batch = await store.create({"mistral": [4]})
    [claim] = await store.run()
    await store.batches.stop(batch.id, "canceled")
    assert await store.settle(claim.ref, 1, outcome(2, errored=1, canceled=1))
    record = await store.batch(batch.id)
    assert dict(record.settled) == {"succeeded": 2, "errored": 1, "canceled": 1, "expired": 0}
    assert record.phase is BatchPhase.ENDED


async def test_a_batch_that_was_never_handed_out_ends_at_once(store: Store) -> None:
    batch = await store.create({"mistral": [4, 4], "llama-70b": [8]})
    await store.batches.stop(batch.id, "canceled")
    record = await store.batch(batch.id)
    assert (record.phase, record.settled["canceled"], record.stop) == (BatchPhase.ENDED, 16, "canceled")


async def test_a_second_cancel_counts_nothing_twice(store: Store) -> None:
    batch = await store.create({"mistral": [4, 4]})
    await store.run(1)
    for _ in range(2):
        assert (await store.batches.stop(batch.id, "canceled")).verdict == "stopped"
    assert (await store.counts(batch.id))["canceled"] == 4


async def test_an_ended_batch_is_not_stopped(store: Store) -> None:
    batch = await store.create()
    [claim] = await store.run()
    await store.settle(claim.ref, 1, outcome(4))
    before = await store.dump()
    assert (await store.batches.stop(batch.id, "canceled")).verdict == "ended"
    assert await store.dump() == before


async def test_a_batch_does_not_expire_early(store: Store, clock: Clock) -> None:
    batch = await store.create()
    clock.advance_s(EXPIRY_S - 5)
    before = await store.dump()
    assert (await store.batches.stop(batch.id, "expired")).verdict == "early"
    assert await store.dump() == before


async def test_past_its_time_nothing_is_handed_out_and_all_that_waits_expires(
    store: Store, clock: Clock
) -> None:
    batch = await store.create({"mistral": [4, 4, 4]})
    [running, submitted] = await store.submit(2)
    await store.start(running)
    clock.advance_s(EXPIRY_S + 1)
    assert await store.claim() == []
    assert (await store.batches.stop(batch.id, "expired")).verdict == "stopped"
    shard = await store.shard(submitted.ref)
    assert shard is not None
    assert shard.outcome == "expired"
    assert await store.counts(batch.id) == {
        "total": 12,
        "succeeded": 0,
        "errored": 0,
        "pending": 4,
        "expired": 8,
    }
    assert await store.beat(running.ref, 1) == "expired"
    assert await store.settle(running.ref, 1, outcome(1, expired=3))
    assert (await store.batch(batch.id)).phase is BatchPhase.ENDED


async def test_the_first_reason_stands(store: Store, clock: Clock) -> None:
    batch = await store.create({"mistral": [4, 4]})
    [running] = await store.run(1)
    await store.batches.stop(batch.id, "canceled")
    clock.advance_s(EXPIRY_S + 1)
    await store.batches.stop(batch.id, "expired")
    assert await store.requeue(running.ref) == "canceled"
    assert (await store.batch(batch.id)).settled == {
        "succeeded": 0,
        "errored": 0,
        "canceled": 8,
        "expired": 0,
    }


@pytest.mark.parametrize("job", ["same", "other"])
async def test_a_job_that_starts_in_a_stopped_batch_is_refused_and_settles_its_shard(
    store: Store, clock: Clock, job: str
) -> None:
    batch = await store.create()
    [claim] = await store.run()
    await store.batches.stop(batch.id, "canceled")
    clock.advance_s(31)
    started = await store.start(claim, job=job_of(claim) if job == "same" else job)
    assert started.verdict == "canceled"
    assert (await store.batch(batch.id)).phase is BatchPhase.ENDED
    assert await store.leases() == (set(), set())
    assert (await store.start(claim)).verdict == "settled"


async def test_a_stop_leaves_other_batches_alone(store: Store) -> None:
    stopped, other = await store.create(), await store.create()
    await store.submit()
    await store.batches.stop(stopped.id, "canceled")
    assert await store.state(ShardRef(other.id, 0)) is ShardState.SUBMITTED
    assert (await store.counts(other.id))["pending"] == 4
