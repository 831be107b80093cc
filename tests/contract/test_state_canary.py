"""The canary: a prompt of ours, whose answer shows that an endpoint works where nothing is left that could settle."""

import pytest

from shared.adapters import keys
from shared.adapters.redis_monitor import RedisMonitor
from shared.core.lifecycle import BatchPhase, ShardState
from shared.core.shards import ShardRecord
from shared.ports.monitor import Breaker
from shared.ports.state import Claim, ShardRef
from tests.contract.state import ENDPOINTS, MISTRAL, TIMING, Store, outcome

REST = keys.rest(MISTRAL.id)
DAY_MS = 86_400_000
MAX_DEATHS = TIMING.max_deaths


async def breaker(store: Store) -> Breaker:
    return (await RedisMonitor(store.redis, ENDPOINTS).breakers())[MISTRAL.id]


async def rest_over(store: Store) -> None:
    """Time limits of keys go by real time."""
    await store.redis.execute("DEL", REST)


async def die_in_a_row(store: Store, times: int) -> None:
    """So many processes die, whose engines answer no canary."""
    for _ in range(times):
        await store.die()
        await rest_over(store)


async def look(store: Store, ref: ShardRef) -> ShardRecord:
    shard = await store.shard(ref)
    assert shard is not None
    return shard


async def lone_request(store: Store) -> Claim:
    """A request of a batch of its own on an endpoint that was never proven, submitted after two deaths."""
    await store.create({"mistral": [1]})
    await die_in_a_row(store, 2)
    [claim] = await store.submit()
    return claim


class TestClaim:
    async def test_a_single_request_that_runs_alone_where_workers_die_takes_a_canary_along(
        self, store: Store
    ) -> None:
        claim = await lone_request(store)
        assert (claim.alone, claim.canary) == (True, True)

    async def test_one_that_runs_in_company_does_not(self, store: Store) -> None:
        await store.create({"mistral": [1]})
        await die_in_a_row(store, 1)
        assert [(claim.alone, claim.canary) for claim in await store.claim()] == [(False, False)]

    async def test_a_shard_of_several_requests_does_not(self, store: Store) -> None:
        await store.create({"mistral": [2]})
        await die_in_a_row(store, 2)
        assert [(claim.alone, claim.canary) for claim in await store.claim()] == [(True, False)]

    async def test_where_the_endpoint_is_known_to_work_nobody_does(self, store: Store) -> None:
        await store.prove()
        await store.create({"mistral": [1]})
        await die_in_a_row(store, 2)
        assert [(claim.alone, claim.canary) for claim in await store.claim()] == [(True, False)]

    async def test_after_more_deaths_in_a_row_than_one_request_needs_it_does_again(
        self, store: Store
    ) -> None:
        await store.prove()
        await store.create({"mistral": [1] * 3})
        claims = [claim for n in range(3) for claim in await store.run(1, worker=f"w{n}")]
        for claim in claims:
            await store.requeue(claim.ref, blame=True)
        await die_in_a_row(store, 2)
        [in_company] = await store.submit()
        assert (in_company.alone, in_company.canary) == (False, False)
        await store.requeue(in_company.ref)
        assert [(claim.alone, claim.canary) for claim in await store.claim()] == [(True, True)]


class TestStart:
    async def test_an_answer_proves_the_endpoint_for_a_day_and_clears_its_deaths(self, store: Store) -> None:
        claim = await lone_request(store)
        assert await breaker(store) == Breaker("half_open", "deaths", 0, 0, 2)
        assert (await store.start(claim, proven=True)).verdict == "run"
        assert await breaker(store) == Breaker("closed", "", 0, 0, 0)
        assert DAY_MS - 60_000 < (await store.ttls_ms())[keys.proof(MISTRAL.id)] <= DAY_MS

    @pytest.mark.parametrize(("cause", "goes_on"), [("deaths", False), ("refused", True)])
    async def test_an_answer_ends_a_rest_after_deaths_and_no_other(
        self, store: Store, cause: str, goes_on: bool
    ) -> None:
        claim = await lone_request(store)
        await store.redis.execute("SET", REST, cause, "PX", DAY_MS)
        await store.start(claim, proven=True)
        assert (REST in await store.ttls_ms()) is goes_on

    async def test_a_shard_whose_canary_got_no_answer_runs_and_proves_nothing(self, store: Store) -> None:
        claim = await lone_request(store)
        assert (await store.start(claim, worker="w9")).verdict == "run"
        assert (await breaker(store)).deaths == 2
        await store.requeue(claim.ref, blame=True)
        assert (await look(store, claim.ref)).deaths == 0

    async def test_an_answer_for_an_attempt_that_is_over_proves_nothing(self, store: Store) -> None:
        claim = await lone_request(store)
        await store.requeue(claim.ref)
        assert (await store.start(claim, proven=True)).verdict == "stale"
        assert (await breaker(store)).deaths == 2


class TestDeath:
    async def test_an_engine_that_dies_of_the_canary_is_at_fault_itself(self, store: Store) -> None:
        claim = await lone_request(store)
        assert await store.requeue(claim.ref, blame=True) == "queued"
        shard = await look(store, claim.ref)
        assert (shard.suspicions, shard.deaths, shard.epoch) == (2, 0, 2)
        assert (await breaker(store)).deaths == 3

    async def test_an_image_that_dies_of_every_canary_errors_no_request(self, store: Store) -> None:
        claim = await lone_request(store)
        for _ in range(12):
            assert await store.requeue(claim.ref, blame=True) == "queued"
            await rest_over(store)
            [claim] = await store.submit()
            assert claim.canary
        assert await store.state(claim.ref) is ShardState.SUBMITTED

    @pytest.mark.parametrize("requests", [1, 2, 5])
    async def test_poison_alone_on_an_endpoint_that_was_never_proven_is_errored_in_a_bounded_number_of_deaths(
        self, store: Store, requests: int
    ) -> None:
        batch = await store.create({"mistral": [requests]})
        needed = 2 + (requests - 1) + MAX_DEATHS * requests
        deaths = 0
        while (await store.batch(batch.id)).phase is not BatchPhase.ENDED:
            await store.die(answers=True)
            await rest_over(store)
            deaths += 1
            # Each fifth in a row is one too many to be believed, and calls for the next canary.
            assert deaths <= needed * 5 / 4
        assert (await store.batch(batch.id)).settled["errored"] == requests

    async def test_the_shards_that_waited_go_on_after_a_canary(self, store: Store) -> None:
        claim = await lone_request(store)
        await store.create({"mistral": [4] * 3})
        assert await store.claim() == []
        await store.start(claim, proven=True)
        assert len(await store.run(3)) == 3
        assert await store.settle(claim.ref, 3, outcome(1))


async def test_an_image_that_turns_bad_after_a_good_hour_does_not_error_the_only_request_there_is(
    store: Store,
) -> None:
    await store.prove()
    batch = await store.create({"mistral": [1]})
    for _ in range(3):
        assert (await store.die())[1] == "queued"
    [claim] = await store.submit()
    assert claim.canary, "its next death would be its last"
    # The engine dies of the canary, so the shard is never started.
    assert await store.requeue(claim.ref, blame=True) == "queued"
    assert await store.counts(batch.id) == {"total": 1, "succeeded": 0, "errored": 0, "pending": 1}
