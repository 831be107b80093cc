"""Crashes at named moments of a batch's way, and what must hold after each of them."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from shared.adapters.upstash import Upstash
from tests.client import BatchClient
from tests.flow.cloud import FlowCloud, count_fired, eventually
from tests.flow.expected import assert_all_succeeded, counts, watch
from tests.flow.fault_runs import begun_again

# A crashed worker's calls are answered once another worker is there.
PATIENCE_S = 90.0
POLL_S = 0.1
MAX_POLLS = 300


@asynccontextmanager
async def armed(client: BatchClient, *names: str, times: int = 1) -> AsyncIterator[None]:
    """Each of the faults strikes so many times, in the block."""
    before = {name: await count_fired(client, name) for name in names}
    await client.control("/faults", {name: {"times": times} for name in names})
    try:
        yield
        for name in names:
            assert await count_fired(client, name) == before[name] + times, name
    finally:
        await client.control("/faults", dict.fromkeys(names, 0))


async def struck(client: BatchClient, name: str, before: int) -> None:
    """Waits until a fault happened more often than before."""

    async def fired() -> bool:
        return await count_fired(client, name) > before

    await eventually(fired, f"{name} strikes", PATIENCE_S)


async def finish(client: BatchClient, batch_id: str, requests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last status of a batch that succeeds, within a bounded number of polls; every line is checked."""
    statuses = await watch(client, batch_id, poll_s=POLL_S, timeout_s=PATIENCE_S)
    assert len(statuses) <= MAX_POLLS
    assert statuses[-1]["counts"] == counts(len(requests), len(requests))
    assert_all_succeeded(await client.lines(batch_id), requests)
    return statuses[-1]


async def settled_epochs(redis: Upstash, batch_id: str) -> dict[str, int]:
    """The epoch of each shard that is settled: a shard that were computed again would have another one."""
    records = await redis.execute("HGETALL", f"batch:{batch_id}:shards")
    shards = {number: json.loads(text) for number, text in records.items()}
    return {number: shard["epoch"] for number, shard in shards.items() if shard["state"] == "settled"}


def assert_finished_once(cloud: FlowCloud, batch_id: str) -> None:
    """No two workers, nor one twice, came to the end of the same shard."""
    entries = [json.loads(line) for line in cloud.logs().splitlines() if f'"{batch_id}"' in line]
    done = Counter(entry["shard"] for entry in entries if entry["message"].startswith("settled "))
    assert done, "workers tell what they settle"
    assert set(done.values()) == {1}


async def assert_cost(redis: Upstash, batch_id: str, last: dict[str, Any], *, begun: int, lost: int) -> None:
    """At most so many shards were begun again, and so many attempts lost."""
    assert await begun_again(redis, batch_id) <= begun
    assert last["lost_attempts"] <= lost
    assert last["splits"] == 0
