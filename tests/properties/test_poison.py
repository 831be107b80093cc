"""Whatever requests kill their workers, however these are lost: exactly those are errored, and no others."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from shared.core.lifecycle import BatchPhase
from shared.core.shards import ShardRecord
from shared.ports.state import Claim, ShardRef
from tests.contract.state import MISTRAL, Store, outcome

MAX_REQUESTS = 6
# Two suspicions, a split for each request but one, and two deaths alone of each; twice, because some may be too many in
# a row to be believed.
MAX_DEATHS = 2 * (2 + (MAX_REQUESTS - 1) + 2 * MAX_REQUESTS)


@st.composite
def shards(draw: st.DrawFn) -> tuple[int, set[int]]:
    """How many requests a shard has, and which of them are poison."""
    requests = draw(st.integers(1, MAX_REQUESTS))
    return requests, draw(st.sets(st.integers(0, requests - 1)))


class Deaths:
    """`takeovers` says of each whether the platform delivers the job again, or a repair finds the worker lost. After
    each the endpoint settles a shard of another batch; where there is none (`others` is None), all that can prove it
    are canaries."""

    def __init__(self, store: Store, others: list[Claim] | None, takeovers: list[bool]) -> None:
        self._store = store
        self._others = others
        self._takeovers = takeovers

    async def strike(self, claim: Claim) -> None:
        """A worker dies of this shard, and so does the next one that runs it."""
        while self._takeovers.pop():
            worker = f"w{len(self._takeovers)}"
            started = await self._store.start(claim, worker=worker, proven=claim.canary)
            await self._prove()
            if started.verdict != "run":
                return
        await self._store.requeue(claim.ref, blame=True)
        await self._prove()

    async def _prove(self) -> None:
        if self._others is not None:
            assert await self._store.settle(self._others.pop().ref, 1, outcome(1))
        # Time limits of keys go by real time.
        await self._store.redis.execute("DEL", keys.rest(MISTRAL.id))


async def run_others(store: Store) -> list[Claim]:
    await store.prove()
    await store.create({"mistral": [1] * MAX_DEATHS})
    return await store.run(MAX_DEATHS)


async def leaves(store: Store, ref: ShardRef) -> list[ShardRecord]:
    shard = await store.shard(ref)
    assert shard is not None
    found = [leaf for half in shard.halves for leaf in await leaves(store, ShardRef(ref.batch, half))]
    return found or [shard]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shards(),
    st.lists(st.booleans(), min_size=MAX_DEATHS, max_size=MAX_DEATHS),
    st.integers(1, 8),
    st.booleans(),
)
async def test_exactly_the_poison_requests_are_errored(
    redis: Upstash, shard: tuple[int, set[int]], takeovers: list[bool], at_once: int, beside_others: bool
) -> None:
    await redis.execute("FLUSHALL")
    store = Store(redis)
    requests, poison = shard
    others = await run_others(store) if beside_others else None
    deaths = Deaths(store, others, takeovers)
    batch = await store.create({"mistral": [requests]})
    while (await store.batch(batch.id)).phase is not BatchPhase.ENDED:
        for claim in await store.run(at_once, worker="w", answers=True):
            ran = await store.shard(claim.ref)
            assert ran is not None
            if poison & set(range(ran.offset, ran.offset + ran.requests)):
                await deaths.strike(claim)
            else:
                assert await store.settle(claim.ref, ran.epoch, outcome(ran.requests))
        await store.counts(batch.id)
    record = await store.batch(batch.id)
    assert record.settled["succeeded"] == requests - len(poison)
    errored = [leaf for leaf in await leaves(store, ShardRef(batch.id, 0)) if leaf.outcome]
    assert {(leaf.offset, leaf.requests, leaf.outcome) for leaf in errored} == {
        (number, 1, "errored") for number in poison
    }
