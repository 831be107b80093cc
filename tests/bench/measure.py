"""One measured batch: its wall time beside the list-scheduling time of the same requests on the same slots."""

import asyncio
import heapq
import json
import random
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter, time
from typing import Any

from shared.core.requests import DEFAULT_MAX_TOKENS
from shared.engines.simulated import SimTiming, duration_s
from tests.client import BatchClient, batch_client
from tests.local_cloud.command import local_cloud_process

POLL_S = 0.02
SDK_LOOK_S = 0.1
SWEEPS_AND_BEATS = ("sweep", "beat")


@dataclass(frozen=True, slots=True)
class Setting:
    """An engine and how many workers run it. `env` is what the worker and its feeders are told of it."""

    timing: SimTiming
    shard_requests: int
    workers: int = 1

    @property
    def env(self) -> dict[str, str]:
        mean_s = (self.timing.ttft_ms + 80 * self.timing.tpot_ms) / 1000
        return {
            "LOCAL_WORKERS": f"mistral={self.workers},llama=0",
            "SIM_TTFT_MS": str(self.timing.ttft_ms),
            "SIM_TPOT_MS": str(self.timing.tpot_ms),
            "SIM_SLOTS": str(self.timing.slots),
            "MISTRAL_SLOTS": str(self.timing.slots),
            "MISTRAL_REQUEST_S": str(mean_s),
            "MISTRAL_SHARD_REQUESTS": str(self.shard_requests),
            "LOG_LEVEL": "WARNING",
        }


@asynccontextmanager
async def bench_cloud(env: Mapping[str, str]) -> AsyncIterator[BatchClient]:
    """A local cloud as a process of its own."""
    async with (
        local_cloud_process(env) as cloud,
        batch_client(cloud.text("batch_url"), cloud.text("api_key"), cloud.text("control_url")) as client,
    ):
        yield client


def ideal_s(requests: Sequence[Mapping[str, Any]], timing: SimTiming, workers: int) -> float:
    """List scheduling: each request in turn takes the slot that is free first."""
    slots = [0.0] * (timing.slots * workers)
    end_s = 0.0
    for request in requests:
        params = {"max_tokens": DEFAULT_MAX_TOKENS, **request["params"]}
        done_s = heapq.heappop(slots) + duration_s(params, timing)
        heapq.heappush(slots, done_s)
        end_s = max(end_s, done_s)
    return end_s


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. `wall_s` is from the first byte of the create to the end that the service recorded (one machine, one
    clock), `seen_s` to the poll that saw it; `stats` are the local cloud's, of this run alone but for peak memory;
    `cpu_s` are the run's CPU seconds by process."""

    batch_id: str
    wall_s: float
    seen_s: float
    create_s: float
    stats: Mapping[str, Any]
    cpu_s: Mapping[str, float]


async def run_batch(client: BatchClient, requests: Sequence[Mapping[str, Any]]) -> Measured:
    """Create a batch and poll it to its end."""
    await client.control("/stats/reset", {})
    before = (await client.control("/stats"))["processes"]
    # An idle SDK worker looks for taken jobs every 0.1 s, and the calls before this one are in step with it: a real
    # caller comes at any moment.
    await asyncio.sleep(SDK_LOOK_S * random.random())
    began_s = time()
    start_s = perf_counter()
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    create_s = perf_counter() - start_s
    status = await client.wait(batch_id, poll_s=POLL_S, timeout_s=300)
    seen_s = perf_counter() - start_s
    wall_s = datetime.fromisoformat(status["ended_at"]).timestamp() - began_s
    if status["counts"]["succeeded"] != len(requests):
        raise RuntimeError(f"lost requests: {status['counts']}")
    stats = await client.control("/stats")
    cpu_s = {name: used["cpu_s"] - before[name]["cpu_s"] for name, used in stats["processes"].items()}
    return Measured(batch_id, wall_s, seen_s, create_s, stats, cpu_s)


async def time_statuses(client: BatchClient, batch_id: str, calls: int = 50) -> tuple[float, float]:
    """Median seconds of a status call on an ended batch, and Redis commands per call."""
    await client.control("/stats/reset", {})
    times = []
    for _ in range(calls):
        start_s = perf_counter()
        await client.call("status", id=batch_id)
        times.append(perf_counter() - start_s)
    stats = await client.control("/stats")
    return sorted(times)[calls // 2], stats["redis"]["total"] / calls


def commands_per_shard(stats: Mapping[str, Any], shards: int) -> float:
    """Redis commands of a whole run over its shards; polls and beats aside."""
    redis = stats["redis"]
    return float((redis["total"] - sum(redis["scripts"].get(name, 0) for name in SWEEPS_AND_BEATS)) / shards)


async def bare_sdk_bytes() -> int:
    """Peak memory of a process that has imported the RunPod SDK and nothing else."""
    code = "import resource, runpod; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    return int(out)


def show(**figures: Any) -> None:
    rounded = {
        name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()
    }
    print(json.dumps(rounded), flush=True)
