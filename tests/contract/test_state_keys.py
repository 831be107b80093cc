"""Every script touches only the keys it declares: each runs as a user who may touch nothing else.

That is what makes the flag safe that lets Upstash lock the declared keys instead of the whole database.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio

from shared.adapters import keys
from shared.adapters.redis_monitor import RedisMonitor
from shared.adapters.upstash import Upstash, script
from shared.core.lifecycle import ShardState
from shared.errors import StateUnavailable
from shared.ports.state import NewBatch, PartDraft, ShardRef
from tests.conftest import Clock, UpstashAddress
from tests.contract.state import ENDPOINTS, LLAMA, Store, lease, new_batch, outcome, part_plan

USER = "declared"


class FencedUpstash(Upstash):
    """Runs each script with the rights to its declared keys only; plain commands with all rights."""

    def __init__(self, address: UpstashAddress, token: str, clock: Clock) -> None:
        super().__init__(address.url, address.token, clock_offset_ms=lambda: clock.offset_ms)
        self._token = token
        self._fenced = Upstash(address.url, token, clock_offset_ms=lambda: clock.offset_ms)
        self.scripts: set[str] = set()

    async def run(self, name: str, keys: Sequence[str], args: Mapping[str, Any], bulk: str = "") -> Any:
        self.scripts.add(name)
        patterns = [f"~{key}" for key in dict.fromkeys(keys)]
        await self.execute("ACL", "SETUSER", USER, "reset", "on", f">{self._token}", "+@all", *patterns)
        return await self._fenced.run(name, keys, args, bulk)

    async def close(self) -> None:
        await self._fenced.close()
        await super().close()


@pytest_asyncio.fixture
async def fenced(
    redis: Upstash, upstash_server: UpstashAddress, clock: Clock
) -> AsyncIterator[FencedUpstash]:
    token = str(await redis.execute("ACL", "GENTOKEN", USER))
    client = FencedUpstash(upstash_server, token, clock)
    yield client
    await client.execute("ACL", "DELUSER", USER)
    await client.close()


@pytest.fixture
def store(fenced: FencedUpstash) -> Store:
    return Store(fenced)


async def test_the_fence_refuses_a_key_that_is_not_declared(fenced: FencedUpstash) -> None:
    reads = "return redis.call('GET', 'open')"
    await fenced.execute("ACL", "SETUSER", USER, "reset", "on", f">{fenced._token}", "+@all", "~other")
    with pytest.raises(StateUnavailable, match=r"(?i)permission"):
        await fenced._fenced.execute("EVAL", reads, 1, "other")


async def test_a_script_that_declares_too_little_is_caught(fenced: FencedUpstash) -> None:
    source = "return redis.call('ZCARD', ARGV[1])"
    await fenced.execute("ACL", "SETUSER", USER, "reset", "on", f">{fenced._token}", "+@all", "~open")
    assert await fenced._fenced.execute("EVAL", source, 1, "open", "open") == 0
    with pytest.raises(StateUnavailable):
        await fenced._fenced.execute("EVAL", source, 1, "open", "batches")


async def test_all_scripts_keep_to_their_keys_through_the_life_of_batches(
    store: Store, fenced: FencedUpstash, clock: Clock
) -> None:
    batch = await store.create(
        {"mistral": [4, 4, 4], "llama-70b": [4]}, idempotency_key="k", body_hash="h", weight=4.0
    )
    await store.batches.commit(new_batch(idempotency_key="k", body_hash="h"))
    await upload_and_create(store)
    await live_through_losses(store, clock)
    await RedisMonitor(fenced, ENDPOINTS).breakers()
    await store.batches.stop(batch.id, "canceled")
    await end_and_delete(store, batch)
    await store.split()
    await expire_another(store, clock)
    folder = {
        "beat",
        "breakers",
        "claim",
        "commit",
        "delete",
        "inspect",
        "record",
        "renew",
        "requeue",
        "rest",
    }
    assert fenced.scripts == folder | {"settle", "start", "stop", "sweep", "upload"}


async def upload_and_create(store: Store) -> None:
    """A part reserved and confirmed, and a batch of it that is gone again."""
    plan = part_plan({"mistral": [4], "llama-70b": [1]})
    for _ in range(2):
        reserved = await store.uploads.reserve("u", PartDraft(0, "h", plan, 10, "", "nonce"))
        await store.uploads.confirm("u", 0, reserved.nonce)
    batch = new_batch(parts=[plan], upload="u", body_hash="h", idempotency_key="k2")
    assert [(await store.batches.commit(batch)).verdict for _ in range(2)] == ["created", "existing"]
    await store.batches.stop(batch.id, "canceled")
    await store.batches.delete(batch.id, "mark")
    await store.batches.delete(batch.id, "finish")


async def live_through_losses(store: Store, clock: Clock) -> None:
    """Refusals, delays, deaths, repairs, a takeover, and one shard settled."""
    await store.queue.rest(LLAMA, None)
    await store.claim(endpoint=LLAMA)
    [first, second, third] = await store.run(3)
    await store.beat(first.ref, 1, succeeded=1)
    await store.start(first)
    assert await store.settle(first.ref, 2, outcome(4, output_tokens=3))
    assert await store.requeue(second.ref, delay_ms=1000, blame=True) == "queued"
    assert await store.requeue(third.ref) == "queued"
    clock.advance_s(2)
    for claim in await store.run():
        await store.repairs.inspect(lease(claim.ref))
        await store.repairs.renew(lease(claim.ref), 1000)
        await store.repairs.drop(lease(claim.ref))
    await store.redis.execute("RPUSH", keys.INBOXES[2], "hint")
    clock.advance_s(60)
    work = (await store.batches.sweep(None, force=True)).work
    assert work is not None
    assert (len(work.leases), work.hints) == (2, ["hint"])


async def end_and_delete(store: Store, batch: NewBatch) -> None:
    await store.batches.sweep(batch.id)
    for number, shard in (await store.batches.shards(batch.id, range(4))).items():
        if shard.state is ShardState.RUNNING:
            assert await store.requeue(ShardRef(batch.id, number)) == "canceled"
    await store.batches.delete(batch.id, "mark")
    await store.batches.delete(batch.id, "finish")
    assert (await store.batches.sweep(batch.id)).batch is None
    assert [claim.ref for claim in await store.claim()] == []


async def expire_another(store: Store, clock: Clock) -> None:
    batch = await store.create({"mistral": [4, 4]}, expires_in_ms=1000)
    [claim] = await store.submit(1)
    clock.advance_s(2)
    assert (await store.batches.stop(batch.id, "expired")).verdict == "stopped"
    assert (await store.start(claim)).verdict == "settled"


def test_every_script_carries_the_flag_and_its_name() -> None:
    source, sha = script("claim")
    assert source.startswith("#!lua flags=allow-key-locking\n-- name: claim\n")
    assert len(sha) == 40
