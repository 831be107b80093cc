"""The circuit breaker: an endpoint whose workers die, or that refuses jobs, rests, and then gets one shard to try."""

from collections.abc import AsyncIterator

import pytest_asyncio

from shared.adapters import keys
from shared.adapters.redis_monitor import RedisMonitor
from shared.core.lifecycle import ShardState
from shared.core.shards import ShardRecord
from shared.ports.monitor import Breaker
from shared.ports.state import Claim, ShardRef, Submitted
from tests.contract.state import ENDPOINTS, LLAMA, MISTRAL, TIMING, WIDE_WINDOW, Store, job_of, outcome

REST = keys.rest(MISTRAL.id)
BELIEVED = 3
LONGEST_REST_MS = 600_000


async def breaker(store: Store) -> Breaker:
    return (await RedisMonitor(store.redis, ENDPOINTS).breakers())[MISTRAL.id]


async def rest_over(store: Store) -> None:
    """Time limits of keys go by real time."""
    await store.redis.execute("DEL", REST)


async def rest_ms(store: Store) -> int:
    return (await store.ttls_ms()).get(REST, 0)


async def die_in_a_row(store: Store, times: int) -> None:
    """So many processes die, each of the next shard."""
    for _ in range(times):
        await store.die()
        await rest_over(store)


async def look(store: Store, ref: ShardRef) -> ShardRecord:
    shard = await store.shard(ref)
    assert shard is not None
    return shard


async def suspects(store: Store, count: int) -> list[Claim]:
    """Single requests of a new batch that run alone, each in a process of its own, on an endpoint that works."""
    await store.create({"mistral": [1, 1]})
    before, after = await store.run()
    assert await store.settle(before.ref, 1, outcome(1))
    await store.create({"mistral": [1] * count})
    for death in range(2):
        for claim in await store.run(count, worker=f"together-{death}"):
            assert await store.requeue(claim.ref, blame=True) == "queued"
    assert await store.settle(after.ref, 1, outcome(1))
    claims = [claim for n in range(count) for claim in await store.run(1, worker=f"w{n}")]
    assert [claim.alone for claim in claims] == [True] * count
    return claims


class TestBlame:
    async def test_suspicions_and_splits_follow_from_every_death(self, store: Store) -> None:
        batch = await store.create({"mistral": [4]})
        verdicts = []
        for _ in range(3):
            verdicts.append((await store.die())[1])
            await rest_over(store)
        assert verdicts == ["queued", "queued", "split"]
        assert (await breaker(store)).deaths == 3
        assert (await look(store, ShardRef(batch.id, 0))).suspicions == 2

    async def test_where_the_endpoint_never_settled_a_shard_no_death_of_a_request_alone_counts(
        self, store: Store
    ) -> None:
        batch = await store.create({"mistral": [1]})
        await die_in_a_row(store, 9)
        shard = await look(store, ShardRef(batch.id, 0))
        assert (shard.state, shard.suspicions, shard.deaths) == (ShardState.QUEUED, 2, 0)
        assert (await store.batch(batch.id)).deaths == 9

    async def test_after_the_third_death_in_a_row_no_death_of_a_request_alone_counts(
        self, store: Store
    ) -> None:
        claims = await suspects(store, 6)
        for claim in claims:
            assert await store.requeue(claim.ref, blame=True) == "queued"
        counted = [(await look(store, claim.ref)).deaths for claim in claims]
        assert counted == [1] * BELIEVED + [0] * (6 - BELIEVED)

    async def test_all_the_shards_of_one_dead_process_are_one_death(self, store: Store) -> None:
        await store.prove()
        await store.create({"mistral": [4] * 16})
        claims = await store.run(16)
        for claim in claims:
            await store.requeue(claim.ref, blame=True)
        assert {(await look(store, claim.ref)).suspicions for claim in claims} == {1}
        assert await breaker(store) == Breaker("closed", "", 0, 0, 1)

    async def test_a_settled_shard_makes_deaths_count_again(self, store: Store) -> None:
        first, *others = await suspects(store, 6)
        for claim in others:
            await store.requeue(claim.ref, blame=True)
        assert (await breaker(store)).deaths == len(others)
        assert await store.settle(first.ref, 3, outcome(1))
        assert (await breaker(store)).deaths == 0
        assert [(await store.die())[1] for _ in range(2)] == ["errored", "errored"]

    async def test_the_proof_of_an_endpoint_holds_for_a_day(self, store: Store) -> None:
        [claim] = await suspects(store, 1)
        assert 86_300_000 < (await store.ttls_ms())[keys.proof(MISTRAL.id)] <= 86_400_000
        await store.redis.execute("DEL", keys.proof(MISTRAL.id))
        await store.requeue(claim.ref, blame=True)
        assert (await look(store, claim.ref)).deaths == 0

    async def test_a_shard_that_was_stopped_proves_nothing(self, store: Store) -> None:
        await store.create()
        [claim] = await store.run()
        await store.batches.stop(claim.ref.batch, "canceled")
        assert await store.settle(claim.ref, 1, outcome(canceled=4))
        assert keys.proof(MISTRAL.id) not in await store.ttls_ms()

    async def test_a_shard_of_which_no_engine_saw_a_request_proves_nothing(self, store: Store) -> None:
        await store.create()
        [claim] = await store.run()
        assert await store.settle(claim.ref, 1, outcome(errored=4, refused=4))
        assert keys.proof(MISTRAL.id) not in await store.ttls_ms()

    async def test_one_endpoint_proves_nothing_for_another(self, store: Store) -> None:
        await store.prove()
        batch = await store.create({"llama-70b": [1]})
        for n in range(4):
            [claim] = await store.run(endpoint=LLAMA, worker=f"w{n}")
            await store.requeue(claim.ref, blame=True)
            await store.redis.execute("DEL", keys.rest(LLAMA.id))
        shard = await look(store, ShardRef(batch.id, 0))
        assert (shard.suspicions, shard.deaths) == (2, 0)


class TestDeaths:
    async def test_the_rest_doubles_with_each_death_and_is_capped(self, store: Store) -> None:
        await store.create()
        for death in range(13):
            await rest_over(store)
            await store.die()
            whole_ms = min(LONGEST_REST_MS, 1000 * 2**death)
            assert whole_ms / 2 - 1000 < await rest_ms(store) <= whole_ms

    async def test_the_first_rest_of_a_proven_endpoint_follows_the_fourth_death(self, store: Store) -> None:
        await store.prove()
        await store.create({"mistral": [1] * 6})
        for death in range(1, BELIEVED + 2):
            await store.die()
            assert (await rest_ms(store) > 0) is (death > BELIEVED)

    async def test_another_shard_of_a_process_that_died_does_not_lengthen_the_rest(
        self, store: Store
    ) -> None:
        await store.create({"mistral": [4, 4]})
        one, two = await store.run()
        await store.requeue(one.ref, blame=True)
        await rest_over(store)
        await store.requeue(two.ref, blame=True)
        assert await rest_ms(store) == 0

    async def test_an_endpoint_at_rest_gets_nothing(self, store: Store) -> None:
        await store.create({"mistral": [4, 4]})
        await store.die()
        assert await store.claim() == []

    async def test_after_its_rest_it_gets_one_shard_at_a_time(self, store: Store) -> None:
        await store.create({"mistral": [4] * 4})
        await die_in_a_row(store, 1)
        [probe] = await store.submit()
        assert await store.claim() == []
        await store.start(probe, worker="w9")
        assert await store.claim() == []
        await store.requeue(probe.ref)
        assert len(await store.claim()) == 1

    async def test_it_gets_nothing_while_what_was_handed_out_before_still_runs(self, store: Store) -> None:
        await store.create({"mistral": [4] * 4})
        one, two = await store.run(2)
        await store.requeue(one.ref, blame=True)
        await rest_over(store)
        assert await store.claim() == []
        await store.requeue(two.ref)
        assert len(await store.claim()) == 1

    async def test_a_settled_shard_closes_it_at_once(self, store: Store) -> None:
        await store.create({"mistral": [4] * 5})
        one, two = await store.run(2)
        await store.requeue(one.ref, blame=True)
        assert await rest_ms(store) > 0
        assert await store.settle(two.ref, 1, outcome(4))
        assert await breaker(store) == Breaker("closed", "", 0, 0, 0)
        assert len(await store.claim()) == 4

    async def test_a_settled_shard_does_not_end_the_rest_of_an_endpoint_that_refuses(
        self, store: Store
    ) -> None:
        await store.create()
        [claim] = await store.run()
        await store.queue.rest(MISTRAL, 30)
        assert await store.settle(claim.ref, 1, outcome(4))
        assert await rest_ms(store) > 25_000

    async def test_where_workers_die_a_fresh_shard_comes_before_one_to_be_retried(self, store: Store) -> None:
        await store.create({"mistral": [4] * 3})
        for shard in (0, 1, 2, 0, 1):
            claim, _ = await store.die()
            assert claim.ref.shard == shard
            await rest_over(store)

    async def test_shards_that_kill_every_worker_do_not_keep_an_endpoint_from_proving_itself(
        self, store: Store
    ) -> None:
        await store.create({"mistral": [1] * 9})
        poison = range(6)
        settled: list[int] = []
        for _ in range(50):
            await rest_over(store)
            for claim in await store.submit(1):
                await store.start(claim, worker=job_of(claim))
                if claim.ref.shard in poison:
                    await store.requeue(claim.ref, blame=True)
                else:
                    shard = await look(store, claim.ref)
                    assert await store.settle(claim.ref, shard.epoch, outcome(1))
                    settled.append(claim.ref.shard)
        assert settled == [6, 7, 8]

    async def test_a_dead_shard_goes_behind_the_others_that_wait_to_be_retried(self, store: Store) -> None:
        await store.create({"mistral": [4, 4]})
        for claim in await store.run():
            await store.requeue(claim.ref)
        [first] = await store.run(1)
        await store.requeue(first.ref)
        assert [claim.ref.shard for claim in await store.claim()] == [1, 0]

    async def test_it_is_shown_with_its_cause(self, store: Store) -> None:
        assert await breaker(store) == Breaker("closed", "", 0, 0, 0)
        await store.create()
        await store.die()
        opened = await breaker(store)
        assert (opened.state, opened.cause, opened.deaths) == ("open", "deaths", 1)
        assert 0 < opened.resting_ms <= 1000
        await rest_over(store)
        assert await breaker(store) == Breaker("half_open", "deaths", 0, 0, 1)


class TestRefusals:
    """After them one probe, until RunPod accepted a job."""

    @pytest_asyncio.fixture(autouse=True)
    async def refused(self, store: Store) -> AsyncIterator[None]:
        await store.create({"mistral": [4] * 9})
        for _ in range(3):
            await store.queue.rest(MISTRAL, None)
        await rest_over(store)
        yield

    async def test_only_one_who_asks_gets_the_probe(self, store: Store) -> None:
        assert len(await store.claim()) == 1
        assert await store.claim() == []
        assert await breaker(store) == Breaker("half_open", "refused", 0, 3, 0)

    async def test_accepted_it_closes_the_breaker_at_once(self, store: Store) -> None:
        assert len(await store.submit()) == 1
        assert await breaker(store) == Breaker("closed", "", 0, 0, 0)
        assert len(await store.claim()) == 8

    async def test_refused_the_endpoint_rests_for_longer(self, store: Store) -> None:
        [probe] = await store.claim()
        await store.requeue(probe.ref)
        assert 4 <= await store.queue.rest(MISTRAL, None) <= 8
        opened = await breaker(store)
        assert (opened.state, opened.cause, opened.refusals) == ("open", "refused", 4)
        assert 3000 < opened.resting_ms <= 8000
        assert await store.claim() == []

    async def test_a_shorter_rest_than_the_probes_own_time_takes_its_place(self, store: Store) -> None:
        await store.claim()
        assert TIMING.claim_ms - 5000 < await rest_ms(store) <= TIMING.claim_ms
        await store.queue.rest(MISTRAL, None)
        assert await rest_ms(store) <= 8000

    async def test_one_who_dies_with_the_probe_holds_it_until_its_claim_is_over(self, store: Store) -> None:
        [probe] = await store.claim()
        assert TIMING.claim_ms - 5000 < await rest_ms(store) <= TIMING.claim_ms
        await rest_over(store)
        [next_probe] = await store.claim()
        assert next_probe.ref != probe.ref
        assert await store.claim() == []

    async def test_a_job_accepted_beside_refused_ones_forgets_no_refusal(self, store: Store) -> None:
        [probe] = await store.claim()
        accepted = [Submitted(probe.ref, probe.attempt, job_of(probe))]
        await store.queue.record(MISTRAL, accepted, healthy=False)
        assert (await breaker(store)).refusals == 3
        assert await store.state(probe.ref) is ShardState.SUBMITTED
        assert 4 <= await store.queue.rest(MISTRAL, None) <= 8

    async def test_a_probe_that_finds_nothing_to_do_holds_up_nobody(self, store: Store) -> None:
        await store.queue.claim(MISTRAL, WIDE_WINDOW, [])
        assert len(await store.claim()) == 1

    async def test_the_refusals_are_known_for_longer_than_the_longest_rest(self, store: Store) -> None:
        await store.queue.rest(MISTRAL, 10**9)
        ttls_ms = await store.ttls_ms()
        assert ttls_ms[REST] <= LONGEST_REST_MS
        assert ttls_ms[keys.failures(MISTRAL.id)] > ttls_ms[REST] + 60_000
