"""The fair queue: who is handed out next, how much an endpoint takes, and when a retry comes back."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from shared.adapters import keys
from shared.ports.state import Claim
from tests.conftest import Clock
from tests.contract.state import LLAMA, MISTRAL, Store


def batches_of(claims: Sequence[Claim]) -> list[str]:
    return [claim.ref.batch for claim in claims]


class TestOrder:
    async def test_the_shards_of_a_batch_come_in_order_with_their_sizes(self, store: Store) -> None:
        await store.create({"llama-70b": [8], "mistral": [4, 4, 2]})
        claims = await store.claim()
        assert [(claim.ref.shard, claim.requests) for claim in claims] == [(1, 4), (2, 4), (3, 2)]
        assert [claim.attempt for claim in claims] == [1, 1, 1]
        [other] = await store.claim(endpoint=LLAMA)
        assert (other.ref.shard, other.requests) == (0, 8)

    async def test_a_claim_knows_how_long_its_batch_has_left(self, store: Store, clock: Clock) -> None:
        await store.create()
        clock.advance_s(3600)
        [claim] = await store.claim()
        assert 22.9 * 3600 * 1000 < claim.left_ms <= 23 * 3600 * 1000

    async def test_two_batches_alternate(self, store: Store) -> None:
        one = await store.create({"mistral": [4] * 6})
        two = await store.create({"mistral": [4] * 6})
        claimed = batches_of(await store.claim(12))
        assert claimed == [one.id, two.id] * 6

    async def test_ties_go_by_arrival(self, store: Store) -> None:
        created = [(await store.create()).id for _ in range(9)]
        assert batches_of(await store.claim(9)) == created

    async def test_a_batch_of_four_times_the_weight_gets_four_times_the_shards(self, store: Store) -> None:
        await store.create({"mistral": [4] * 40})
        urgent = await store.create({"mistral": [4] * 40}, weight=4.0)
        shares = Counter(batches_of(await store.claim(40)))
        assert 30 <= shares[urgent.id] <= 33

    async def test_large_shards_are_paid_for(self, store: Store) -> None:
        large = await store.create({"mistral": [32] * 20})
        await store.create({"mistral": [8] * 20})
        shares = Counter(batches_of(await store.claim(20)))
        assert 3 <= shares[large.id] <= 5

    async def test_a_stream_of_newcomers_does_not_starve_a_big_batch(self, store: Store) -> None:
        big = await store.create({"mistral": [8] * 50})
        served = 0
        for _ in range(40):
            await store.create({"mistral": [8]})
            served += batches_of(await store.claim(1)).count(big.id)
        assert served >= 4

    async def test_a_newcomer_does_not_wait_for_a_big_batch(self, store: Store) -> None:
        await store.create({"mistral": [8] * 50})
        await store.claim(20)
        newcomer = await store.create({"mistral": [8]})
        assert newcomer.id in batches_of(await store.claim(2))

    async def test_two_claims_at_once_hand_out_every_shard_once(self, store: Store) -> None:
        for _ in range(4):
            await store.create({"mistral": [4] * 5})
        heads = await heads_of(store)
        rounds = await asyncio.gather(*(store.queue.claim(MISTRAL, 100, heads) for _ in range(6)))
        handed = [claim.ref for answer in rounds for claim in answer.claims]
        assert len(set(handed)) == len(handed) == 20


class TestWindow:
    async def test_no_more_wait_than_the_window_takes(self, store: Store) -> None:
        await store.create({"mistral": [4] * 9})
        claims = await store.claim(window=3)
        assert len(claims) == 3
        assert await store.claim(window=3) == []

    async def test_a_start_makes_room(self, store: Store) -> None:
        await store.create({"mistral": [4] * 9})
        first, *_ = await store.claim(window=3)
        await store.start(first)
        assert len(await store.claim(window=3)) == 1

    async def test_what_a_worker_says_it_holds_widens_the_window(self, store: Store) -> None:
        await store.create({"mistral": [4] * 9})
        heads = await heads_of(store)
        assert len((await store.queue.claim(MISTRAL, 3, heads)).claims) == 3
        await store.queue.publish_capacity(MISTRAL, 5)
        wider = await store.queue.claim(MISTRAL, 3, heads)
        assert (len(wider.claims), wider.room) == (2, 0)

    async def test_at_most_eight_are_handed_out_by_one_call(self, store: Store) -> None:
        await store.create({"mistral": [4] * 20})
        answer = await store.queue.claim(MISTRAL, 100, await heads_of(store))
        assert (len(answer.claims), answer.room) == (8, 92)

    async def test_an_endpoint_at_rest_is_given_nothing(self, store: Store) -> None:
        await store.create()
        assert await store.queue.rest(MISTRAL, None) > 0
        answer = await store.queue.claim(MISTRAL, 100, await heads_of(store))
        assert (list(answer.claims), list(answer.heads), answer.room) == ([], [], 0)
        await store.redis.execute("DEL", keys.rest(MISTRAL.id))
        assert len(await store.claim()) == 1


class TestRest:
    async def test_each_refusal_in_a_row_doubles_the_rest(self, store: Store) -> None:
        rests_s = [await store.queue.rest(MISTRAL, None) for _ in range(9)]
        assert 0.5 <= rests_s[0] <= 1
        assert 4 <= rests_s[3] <= 8
        assert 30 <= rests_s[8] <= 60

    async def test_the_endpoints_own_wish_is_obeyed(self, store: Store) -> None:
        assert await store.queue.rest(MISTRAL, 17) == 17
        assert 16_000 < (await store.ttls_ms())[keys.rest(MISTRAL.id)] <= 17_000

    async def test_a_shorter_rest_does_not_end_a_longer_one(self, store: Store) -> None:
        await store.queue.rest(MISTRAL, 30)
        await store.queue.rest(MISTRAL, 0)
        assert (await store.ttls_ms())[keys.rest(MISTRAL.id)] > 25_000

    async def test_an_accepted_job_forgets_the_refusals(self, store: Store) -> None:
        for _ in range(4):
            await store.queue.rest(MISTRAL, None)
        await store.redis.execute("DEL", keys.rest(MISTRAL.id))
        await store.create()
        await store.submit()
        assert await store.queue.rest(MISTRAL, None) <= 1


class TestRetries:
    async def test_a_retry_comes_before_the_shards_not_handed_out_yet(self, store: Store) -> None:
        await store.create({"mistral": [4] * 3})
        [first] = await store.claim(1)
        await store.requeue(first.ref)
        assert [claim.ref.shard for claim in await store.claim()] == [0, 1, 2]

    async def test_a_delayed_retry_comes_back_when_it_is_due(self, store: Store, clock: Clock) -> None:
        await store.create()
        [claim] = await store.run()
        await store.requeue(claim.ref, delay_ms=5000)
        assert await store.claim() == []
        clock.advance_s(4.9)
        assert await store.claim() == []
        clock.advance_s(0.2)
        [again] = await store.claim()
        assert (again.ref, again.attempt) == (claim.ref, 2)

    async def test_a_delayed_retry_does_not_hold_up_its_batch(self, store: Store) -> None:
        await store.create({"mistral": [4, 4]})
        [first] = await store.claim(1)
        await store.requeue(first.ref, delay_ms=5000)
        assert [claim.ref.shard for claim in await store.claim()] == [1]


class TestResend:
    async def test_the_same_nonce_gives_the_same_shards_and_hands_out_nothing_more(
        self, store: Store
    ) -> None:
        await store.create({"mistral": [4] * 20})
        heads = await heads_of(store)
        first = await claim_with_nonce(store, "n1", heads)
        again = await claim_with_nonce(store, "n1", heads)
        assert again == first
        assert len(first["claims"]) == 8
        other = await claim_with_nonce(store, "n2", heads)
        assert {claim["shard"] for claim in other["claims"]} == set(range(8, 16))


async def heads_of(store: Store) -> list[str]:
    heads: list[str] = await store.redis.execute("ZRANGE", keys.queue("mistral"), 0, 7)
    return heads


async def claim_with_nonce(store: Store, nonce: str, heads: list[str]) -> dict[str, Any]:
    """What RedisQueue.claim sends, with a nonce of our choice."""
    declared = [
        keys.queue("mistral"),
        keys.delayed("mistral"),
        keys.vtime("mistral"),
        keys.waiting(MISTRAL.id),
        keys.running(MISTRAL.id),
        keys.rest(MISTRAL.id),
        keys.failures(MISTRAL.id),
        keys.deaths(MISTRAL.id),
        keys.proof(MISTRAL.id),
        keys.capacity(MISTRAL.id),
        keys.claim_nonce(nonce),
    ]
    for head in heads:
        batch_id = head.partition(":")[2]
        declared += [keys.batch(batch_id), keys.shards(batch_id), keys.plan(batch_id)]
    args = {"endpoint": MISTRAL.id, "model": "mistral", "max": 8, "window": 100, "claim_ms": 30_000}
    answer: dict[str, Any] = await store.redis.run("claim", declared, {**args, "members": heads})
    return answer
