"""The beats of a process: while its shards run, with a tick beside each, and one tick more after the last."""

import asyncio

from shared.flow.running import RunningShard, RunningShards
from shared.ports.state import Endpoint, ShardRef
from tests.fakes import FakeRuns

ENDPOINT = Endpoint("ep", "http://runpod.invalid/v2/ep", "mistral")
DEADLINE_S = 60


async def test_a_last_tick_follows_the_last_shard() -> None:
    runs = FakeRuns()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        ticks += 1

    running = RunningShards(runs, ENDPOINT, tick, beat_s=0.001)
    shard = RunningShard(ShardRef("batch", 0), 1)
    running.add(shard)
    running.remove(shard)
    beating = running._beating
    assert beating is not None
    await asyncio.wait_for(beating, DEADLINE_S)
    await asyncio.sleep(0)
    assert (len(runs.beats), ticks) == (0, 1)
