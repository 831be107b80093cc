"""The lifecycle table holds in the real scripts: every event is fired at every state, through the real adapters."""

from dataclasses import replace

import pytest

from shared.core.lifecycle import MOVES, Event, ShardState, next_state
from shared.ports.state import ShardRef, Submitted
from tests.contract.state import MISTRAL, Store, outcome

REQUESTS = 4


async def bring_to(store: Store, state: ShardState, *, alone: bool = False) -> ShardRef:
    """A shard in `state`, made by legal moves. A second shard keeps its batch open. `alone`: the death of its worker
    splits it."""
    if state is ShardState.SPLIT:
        return await store.split({"mistral": [REQUESTS, 1]})
    if alone:
        await store.prove()
    await store.create({"mistral": [REQUESTS, 1]})
    for _ in range(2 if alone else 0):
        await store.die()
    [claim] = await store.claim(1)
    assert claim.alone is alone
    ref = claim.ref
    match state:
        case ShardState.QUEUED:
            await store.requeue(ref)
        case ShardState.CLAIMED:
            pass
        case ShardState.SUBMITTED:
            await store.queue.record(MISTRAL, [Submitted(ref, claim.attempt, "job")])
        case ShardState.RUNNING:
            await store.runs.start(ref, claim.attempt, "job", "w1", MISTRAL)
        case ShardState.SETTLED:
            started = await store.runs.start(ref, claim.attempt, "job", "w1", MISTRAL)
            assert await store.settle(ref, started.epoch, outcome(REQUESTS))
    assert await store.state(ref) is state
    return ref


async def fire(store: Store, event: Event, ref: ShardRef) -> None:
    shard = await store.shard(ref)
    assert shard is not None
    match event:
        case Event.CLAIM:
            await store.claim(8)
        case Event.RECORD:
            await store.queue.record(MISTRAL, [Submitted(ref, shard.attempt, "job")])
        case Event.START:
            await store.runs.start(ref, shard.attempt, "job", "w1", MISTRAL)
        case Event.BEAT:
            await store.beat(ref, shard.epoch)
        case Event.SETTLE:
            await store.settle(ref, shard.epoch, outcome(REQUESTS))
        case Event.REQUEUE:
            await store.requeue(ref)
        case Event.SPLIT:
            seen = replace(shard, state=ShardState.RUNNING)
            await store.repairs.requeue(ref, seen, delay_ms=0, blame=True, message="")
        case Event.STOP:
            await store.batches.stop(ref.batch, "canceled")


# Nobody asks for these: a repair drops the lease of such a shard instead (core/repair.py).
NEVER_ASKED = {(ShardState.QUEUED, Event.REQUEUE), (ShardState.SETTLED, Event.REQUEUE)}
CASES = [(state, event) for state in ShardState for event in Event if (state, event) not in NEVER_ASKED]


@pytest.mark.parametrize(("state", "event"), CASES, ids=lambda value: value.value)
async def test_an_event_leads_where_the_table_says(store: Store, state: ShardState, event: Event) -> None:
    ref = await bring_to(store, state, alone=event is Event.SPLIT)
    await fire(store, event, ref)
    assert await store.state(ref) is next_state(state, event)
    await store.counts(ref.batch)


@pytest.mark.parametrize(
    ("state", "event"),
    [case for case in CASES if case not in MOVES and case[1] not in (Event.CLAIM, Event.STOP)],
    ids=lambda value: value.value,
)
async def test_an_illegal_event_changes_nothing(store: Store, state: ShardState, event: Event) -> None:
    ref = await bring_to(store, state, alone=event is Event.SPLIT)
    before = await store.dump()
    await fire(store, event, ref)
    assert await store.dump() == before


async def test_a_shard_that_nobody_claimed_has_no_record_and_ends_with_its_batch(store: Store) -> None:
    batch = await store.create()
    assert await store.shard(ShardRef(batch.id, 0)) is None
    await store.batches.stop(batch.id, "canceled")
    assert await store.counts(batch.id) == {
        "total": 4,
        "succeeded": 0,
        "errored": 0,
        "pending": 0,
        "canceled": 4,
    }
