"""Poison: a death in company is a suspicion, a death alone splits, and only a request that dies alone is errored."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio

from shared.adapters import keys, upstash
from shared.adapters.redis_shards import RedisRepairs, RedisRuns
from shared.adapters.upstash import Upstash
from shared.core.lifecycle import BatchPhase, ShardState
from shared.core.shards import ShardRecord
from shared.flow.removal import remove_payloads
from shared.ports.payloads import input_key, output_key
from shared.ports.state import Claim, ShardRef, Submitted
from tests.conftest import Clock, UpstashAddress
from tests.contract.misbehaving import Misbehaving
from tests.contract.state import HOUR_MS, MISTRAL, TIMING, Store, job_of, outcome
from tests.fakes import FakePayloads

OTHERS = 16


class Neighbours:
    """Shards of another batch, which run beside the suspects; each that settles proves the endpoint anew."""

    def __init__(self, store: Store, claims: list[Claim]) -> None:
        self._store = store
        self._claims = claims

    async def settle_one(self) -> None:
        assert await self._store.settle(self._claims.pop().ref, 1, outcome(1))


@pytest_asyncio.fixture
async def neighbours(store: Store) -> Neighbours:
    await store.create({"mistral": [1] * OTHERS})
    found = Neighbours(store, await store.run(OTHERS))
    await found.settle_one()
    return found


async def look(store: Store, ref: ShardRef) -> ShardRecord:
    shard = await store.shard(ref)
    assert shard is not None
    return shard


async def suspect(store: Store, sizes: Sequence[int]) -> ShardRef:
    """The first shard of a new batch, back after two deaths in company."""
    batch = await store.create({"mistral": sizes})
    for _ in range(2):
        assert (await store.die())[1] == "queued"
    return ShardRef(batch.id, 0)


async def leaves_of(store: Store, ref: ShardRef) -> list[ShardRecord]:
    """What a shard was split into, down to what is whole, in order."""
    shard = await look(store, ref)
    if not shard.halves:
        return [shard]
    return [leaf for half in shard.halves for leaf in await leaves_of(store, ShardRef(ref.batch, half))]


@pytest.mark.usefixtures("neighbours")
class TestSuspicion:
    async def test_a_death_in_company_is_a_suspicion_of_each_shard_and_nothing_more(
        self, store: Store
    ) -> None:
        await store.create({"mistral": [4, 4]})
        claims = await store.run()
        assert not any(claim.alone for claim in claims)
        for claim in claims:
            assert await store.requeue(claim.ref, blame=True) == "queued"
            shard = await look(store, claim.ref)
            assert (shard.suspicions, shard.deaths, shard.halves) == (1, 0, ())
        assert not any(claim.alone for claim in await store.claim())

    async def test_after_two_a_shard_is_claimed_to_run_alone(self, store: Store) -> None:
        ref = await suspect(store, [4, 4])
        alone = {claim.ref: claim.alone for claim in await store.claim()}
        assert alone == {ref: True, ShardRef(ref.batch, 1): False}
        shard = await look(store, ref)
        assert (shard.suspicions, shard.deaths, shard.alone) == (2, 0, True)

    async def test_a_shard_given_back_without_blame_is_no_suspect(self, store: Store) -> None:
        batch = await store.create()
        for _ in range(3):
            [claim] = await store.run()
            await store.requeue(claim.ref)
        assert (await look(store, ShardRef(batch.id, 0))).suspicions == 0

    async def test_a_job_that_ended_before_its_shard_began_makes_no_suspect(self, store: Store) -> None:
        await store.create()
        [claim] = await store.submit()
        assert await store.requeue(claim.ref, blame=True) == "queued"
        assert (await look(store, claim.ref)).suspicions == 0
        assert (await store.batch(claim.ref.batch)).deaths == 1

    async def test_a_takeover_in_company_is_a_suspicion_and_the_second_puts_the_shard_back(
        self, store: Store
    ) -> None:
        await store.create()
        [claim] = await store.run()
        assert (await store.start(claim, worker="w2")).verdict == "run"
        assert (await look(store, claim.ref)).suspicions == 1
        assert (await store.start(claim, worker="w3")).verdict == "stale"
        shard = await look(store, claim.ref)
        assert (shard.state, shard.suspicions, shard.deaths) == (ShardState.QUEUED, 2, 0)
        assert (await store.start(claim, worker="w4")).verdict == "stale"
        [again] = await store.run()
        assert (again.ref, again.attempt, again.alone) == (claim.ref, 2, True)

    async def test_what_was_submitted_in_company_before_the_second_does_not_run_so_after_it(
        self, store: Store
    ) -> None:
        await store.create()
        await store.die()
        [claim] = await store.run()
        assert (await store.start(claim, worker="w2")).verdict == "stale"
        assert [again.alone for again in await store.claim()] == [True]


@pytest.mark.usefixtures("neighbours")
class TestSplit:
    @pytest.mark.parametrize("requests", [2, 3, 8, 31])
    async def test_a_death_alone_puts_two_halves_in_the_shards_place(
        self, store: Store, requests: int
    ) -> None:
        ref = await suspect(store, [requests, 4])
        claim, verdict = await store.die()
        assert (claim.ref, verdict, await store.state(ref)) == (ref, "split", ShardState.SPLIT)
        first, second = await leaves_of(store, ref)
        assert [(part.state, part.root, part.deaths) for part in (first, second)] == [
            (ShardState.QUEUED, 0, 0)
        ] * 2
        assert (first.offset, first.requests) == (0, requests // 2)
        assert (second.offset, second.requests) == (requests // 2, requests - requests // 2)

    async def test_the_halves_run_alone_from_the_start_and_before_the_next_shard(self, store: Store) -> None:
        ref = await suspect(store, [5, 4])
        await store.die()
        claims = await store.claim()
        assert [(claim.ref.shard, claim.requests, claim.alone, claim.attempt) for claim in claims] == [
            (2, 2, True, 1),
            (3, 3, True, 1),
            (1, 4, False, 1),
        ]
        assert {claim.ref.batch for claim in claims} == {ref.batch}

    async def test_a_worker_is_told_where_the_input_of_a_half_is(self, store: Store) -> None:
        batch = await store.create({"llama-70b": [1], "mistral": [5]})
        for _ in range(3):
            await store.die()
        claims = await store.submit()
        started = [await store.start(claim) for claim in claims]
        assert [(s.root, s.offset, s.requests) for s in started] == [(1, 0, 2), (1, 2, 3)]
        assert {s.nonce for s in started} == {batch.nonce}
        assert all(0 < s.keep_ms <= 48 * HOUR_MS for s in started)

    async def test_a_whole_shard_begins_its_own_input(self, store: Store) -> None:
        await store.create({"mistral": [4, 2]})
        started = [await store.start(claim) for claim in await store.submit()]
        assert [(s.root, s.offset, s.requests) for s in started] == [(0, 0, 4), (1, 0, 2)]

    @pytest.mark.parametrize("requests", [2, 3, 7])
    async def test_deaths_alone_split_down_to_single_requests_in_order(
        self, store: Store, neighbours: Neighbours, requests: int
    ) -> None:
        ref = await suspect(store, [requests])
        splits = 0
        while any(part.requests > 1 for part in await leaves_of(store, ref)):
            claim, verdict = await store.die()
            await neighbours.settle_one()
            assert verdict == ("split" if claim.requests > 1 else "queued")
            splits += verdict == "split"
        leaves = await leaves_of(store, ref)
        assert [(leaf.offset, leaf.requests, leaf.root) for leaf in leaves] == [
            (n, 1, 0) for n in range(requests)
        ]
        assert (await store.batch(ref.batch)).splits == splits == requests - 1

    async def test_a_takeover_alone_splits_and_the_job_for_both_halves_is_refused(self, store: Store) -> None:
        ref = await suspect(store, [4])
        [claim] = await store.run()
        assert (await store.start(claim, worker="w2")).verdict == "stale"
        assert await store.state(ref) is ShardState.SPLIT
        assert (await store.start(claim, worker="w3")).verdict == "stale"
        assert [part.requests for part in await leaves_of(store, ref)] == [2, 2]
        assert len(await store.claim()) == 2

    async def test_a_delayed_split_hands_its_halves_out_when_they_are_due(
        self, store: Store, clock: Clock
    ) -> None:
        ref = await suspect(store, [4])
        await store.run()
        assert await store.requeue(ref, delay_ms=5000, blame=True) == "split"
        assert await store.claim() == []
        clock.advance_s(6)
        assert [claim.ref.shard for claim in await store.claim()] == [1, 2]

    async def test_live_counts_of_a_split_shard_are_taken_back_and_its_lease_is_gone(
        self, store: Store
    ) -> None:
        ref = await suspect(store, [4])
        _, before = await store.leases()
        await store.run()
        await store.beat(ref, 3, succeeded=2, errored=1)
        await store.requeue(ref, blame=True)
        assert await store.counts(ref.batch) == {"total": 4, "succeeded": 0, "errored": 0, "pending": 4}
        assert await store.leases() == (set(), before)

    async def test_a_split_shard_is_over_for_the_worker_that_ran_it(self, store: Store) -> None:
        ref = await suspect(store, [4])
        await store.die()
        before = await store.dump()
        assert await store.beat(ref, 3, succeeded=1) == "lost"
        assert not await store.settle(ref, 3, outcome(4))
        await store.queue.record(MISTRAL, [Submitted(ref, 3, "late")])
        assert await store.dump() == before

    async def test_of_two_repairs_that_saw_the_same_one_splits(self, store: Store) -> None:
        ref = await suspect(store, [4])
        await store.run()
        seen = await look(store, ref)
        verdicts = [
            await store.repairs.requeue(ref, seen, delay_ms=0, blame=True, message="") for _ in range(2)
        ]
        assert verdicts == ["split", "changed"]
        assert len(await store.claim()) == 2

    async def test_a_batch_tells_its_attempts_and_splits(self, store: Store) -> None:
        ref = await suspect(store, [4])
        await store.die()
        await store.run()
        record = await store.batch(ref.batch)
        assert (record.attempts, record.deaths, record.splits) == (5, 3, 1)


async def by_requeue(store: Store, client: Upstash, claim: Claim) -> None:
    seen = replace(await look(store, claim.ref), beat_ms=-1)
    await RedisRepairs(client, TIMING).requeue(claim.ref, seen, delay_ms=0, blame=True, message="")


async def by_takeover(store: Store, client: Upstash, claim: Claim) -> None:
    await RedisRuns(client, TIMING).start(claim.ref, claim.attempt, job_of(claim), "w2", MISTRAL)


@pytest.mark.usefixtures("neighbours")
@pytest.mark.parametrize("split", [by_requeue, by_takeover])
async def test_a_split_whose_reply_was_lost_is_one_split(
    store: Store,
    upstash_server: UpstashAddress,
    monkeypatch: pytest.MonkeyPatch,
    split: Callable[[Store, Upstash, Claim], Awaitable[None]],
) -> None:
    monkeypatch.setattr(upstash, "RETRY_PAUSE_S", 0.0)
    ref = await suspect(store, [4])
    [claim] = await store.run()
    async with Misbehaving(upstash_server.url).serving() as proxy:
        client = Upstash(proxy.url, upstash_server.token)
        # The scripts are known there already: the lost reply is that of the split.
        proxy.lose = 1
        await split(store, client, claim)
        await client.close()
    assert [part.requests for part in await leaves_of(store, ref)] == [2, 2]
    record = await store.batch(ref.batch)
    assert (record.splits, record.deaths) == (1, 3)


class TestSingleRequest:
    async def test_one_that_dies_alone_twice_is_errored_with_the_reason(
        self, store: Store, neighbours: Neighbours
    ) -> None:
        ref = await suspect(store, [1, 4])
        assert (await store.die())[1] == "queued"
        await neighbours.settle_one()
        assert (await look(store, ref)).deaths == 1
        [claim] = await store.run(1)
        assert (claim.ref, claim.alone) == (ref, True)
        assert await store.requeue(ref, blame=True, message="died alone") == "errored"
        shard = await look(store, ref)
        assert (shard.state, shard.outcome, shard.error) == (ShardState.SETTLED, "errored", "died alone")
        assert await store.counts(ref.batch) == {"total": 5, "succeeded": 0, "errored": 1, "pending": 4}
        assert [other.ref.shard for other in await store.claim()] == [1]

    async def test_a_poison_request_takes_no_neighbour_along(
        self, store: Store, neighbours: Neighbours
    ) -> None:
        ref = await suspect(store, [8])
        poison = 5
        while (await store.batch(ref.batch)).phase is not BatchPhase.ENDED:
            [claim] = await store.run(1, worker="w-next")
            shard = await look(store, claim.ref)
            if shard.offset <= poison < shard.offset + shard.requests:
                await store.requeue(claim.ref, blame=True)
                await neighbours.settle_one()
            else:
                assert await store.settle(claim.ref, shard.epoch, outcome(shard.requests))
        assert await store.counts(ref.batch) == {"total": 8, "succeeded": 7, "errored": 1, "pending": 0}
        errored = [leaf for leaf in await leaves_of(store, ref) if leaf.outcome]
        assert [(leaf.offset, leaf.requests, leaf.outcome) for leaf in errored] == [(poison, 1, "errored")]


@pytest.mark.usefixtures("neighbours")
@pytest.mark.parametrize("reason", ["canceled", "expired"])
async def test_a_batch_that_is_stopped_after_splits_settles_each_request_once(
    store: Store, clock: Clock, reason: str
) -> None:
    ref = await suspect(store, [8, 3])
    await store.die()
    one, two = await store.run(2)
    assert await store.settle(one.ref, 1, outcome(4))
    assert await store.requeue(two.ref, blame=True) == "split"
    [running] = await store.run(1)
    [waiting] = await store.submit(1)
    assert (running.requests, waiting.requests, waiting.ref.shard) == (2, 2, running.ref.shard + 1)
    if reason == "expired":
        clock.advance_s(24 * 3600 + 1)
    stopped = await store.batches.stop(ref.batch, reason)  # type: ignore[arg-type]
    assert [job for _, job in stopped.jobs] == [job_of(waiting)]
    assert (await store.start(waiting)).verdict == "settled"
    assert await store.beat(running.ref, 1, succeeded=1) == reason
    assert await store.settle(running.ref, 1, outcome(1, **{reason: 1}))
    record = await store.batch(ref.batch)
    assert record.phase is BatchPhase.ENDED
    assert {name: count for name, count in record.settled.items() if count} == {"succeeded": 5, reason: 6}
    assert await store.state(ref) is ShardState.SPLIT


@pytest.mark.usefixtures("neighbours")
async def test_a_death_alone_in_a_stopped_batch_settles_instead_of_splitting(store: Store) -> None:
    ref = await suspect(store, [4])
    await store.run()
    await store.batches.stop(ref.batch, "canceled")
    assert await store.requeue(ref, blame=True) == "canceled"
    record = await store.batch(ref.batch)
    assert (record.phase, record.settled["canceled"], record.splits) == (BatchPhase.ENDED, 4, 0)


@pytest.mark.usefixtures("neighbours")
async def test_a_deletion_after_splits_removes_what_every_epoch_of_every_half_stored(store: Store) -> None:
    ref = await suspect(store, [4])
    await store.die()
    one, two = await store.run()
    assert await store.requeue(one.ref) == "queued"
    [again] = await store.run()
    assert again.ref == one.ref
    assert await store.settle(one.ref, 2, outcome(2))
    assert await store.settle(two.ref, 1, outcome(2))
    nonce = (await store.batches.delete(ref.batch, "mark")).nonce
    payloads = FakePayloads()
    epochs = {0: 3, 1: 2, 2: 1}
    outputs = [output_key(nonce, shard, epoch) for shard in epochs for epoch in range(1, epochs[shard] + 1)]
    payloads.items = dict.fromkeys([input_key(nonce, 0), *outputs], b"")
    await remove_payloads(store.batches, payloads, ref.batch, nonce)
    assert payloads.items == {}


async def test_deaths_that_an_earlier_version_counted_do_not_error_a_request_where_no_engine_works(
    store: Store,
) -> None:
    batch = await store.create({"mistral": [1]})
    [claim] = await store.claim()
    # It counted every death, up to 4, and knew nothing of suspicions.
    text = await store.redis.execute("HGET", keys.shards(batch.id), 0)
    old = {**json.loads(text), "deaths": 3, "suspicions": 2, "alone": True}
    await store.redis.execute("HSET", keys.shards(batch.id), 0, json.dumps(old))
    assert (await store.start(claim)).verdict == "run"
    assert await store.requeue(claim.ref, blame=True) == "queued"
