"""A batch larger than one call takes: through the Node adapter, the batch handler and an engine that takes no time of
its own, and its results to a file. Besides rates, what matters is memory, and that nothing grows with the batch."""

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench.measure import bench_cloud, commands_per_shard, run_batch, show
from tests.client import BatchClient, make_requests
from tests.local_cloud.cloud import REPOSITORY

MB = 1_000_000
DEFAULT_REQUESTS = 100_000
# What Anthropic takes in a batch, and the service by default.
DEFAULT_MB = 256
LIMIT_BYTES = 256 * 1024 * 1024
SMALL_BATCH = 100
STATUS_CALLS = 20
MAX_RUN_S = 2 * 3600
POLL_S = 0.5

# An engine that answers at once leaves the service to be measured, and jobs enough that the SDK's loop is never full.
ENGINE = {
    "LOCAL_WORKERS": "mistral=1,llama=1",
    "SIM_TTFT_MS": "0",
    "SIM_TPOT_MS": "0",
    "SIM_SLOTS": "1024",
    "MISTRAL_SHARD_REQUESTS": "64",
    "LLAMA_SHARD_REQUESTS": "64",
    "WORKER_CONCURRENCY": "64",
    "LOG_LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True)
class Size:
    requests: int
    bytes: int

    @property
    def env(self) -> dict[str, str]:
        """A cloud whose service takes a batch of this size."""
        return {
            **ENGINE,
            "MAX_REQUESTS": str(max(self.requests, DEFAULT_REQUESTS)),
            "MAX_BATCH_BYTES": str(max(2 * self.bytes, LIMIT_BYTES)),
        }


class AdapterProcess:
    """The Node process that sends the batch and reads its results; a line of JSON tells of each step."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, client: BatchClient, size: Size, out: Path) -> "AdapterProcess":
        options = {"requests": size.requests, "bytes": size.bytes, "out": str(out)}
        return cls(
            await asyncio.create_subprocess_exec(
                *("node", "tests/bench/large.mjs", json.dumps(options)),
                cwd=REPOSITORY,
                env={
                    **os.environ,
                    "LOCAL_BATCH_URL": client.url,
                    "RUNPOD_API_KEY": client.session.headers["Authorization"].removeprefix("Bearer "),
                },
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def step(self, name: str) -> dict[str, Any]:
        """The figures of the next step. Raises RuntimeError where the process ended instead."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the adapter's process ended with code {await self._process.wait()}")
        figures: dict[str, Any] = json.loads(line)
        if figures["step"] != name:
            raise RuntimeError(f"the adapter's process is at {figures['step']!r}, not at {name!r}")
        return figures

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def run(requests: int, mb: int) -> None:
    size = Size(requests, mb * MB)
    async with asyncio.timeout(MAX_RUN_S), bench_cloud(size.env) as client:
        with tempfile.TemporaryDirectory() as folder:
            show(bench="large", **await measure(client, size, Path(folder) / "results.jsonl"))


async def measure(
    client: BatchClient, size: Size, out: Path, status_calls: int = STATUS_CALLS
) -> dict[str, Any]:
    """The figures of one batch; its results are in `out` afterwards. Raises RuntimeError where any is missing."""

    async def status(batch_id: str) -> Mapping[str, float]:
        return await _time_status(client, batch_id, status_calls)

    small = await run_batch(client, make_requests(SMALL_BATCH))
    statuses = {f"{SMALL_BATCH} requests": await status(small.batch_id)}
    await client.control("/stats/reset", {})
    adapter = await AdapterProcess.start(client, size, out)
    try:
        created = await adapter.step("created")
        statuses["0 %"] = await status(created["id"])
        await _half_done(client, created["id"])
        statuses["50 %"] = await status(created["id"])
        ended = await adapter.step("ended")
        statuses["100 %"] = await status(created["id"])
        ran = await client.control("/stats")
        await client.control("/stats/reset", {})
        adapter.go_on()
        read = await adapter.step("read")
    finally:
        await adapter.end()
    stats = await client.control("/stats")
    shards = sum(ran["runpod"][endpoint].get("run", 0) for endpoint in ("mistral", "llama"))
    pages = stats["runpod"]["batch-api"]["runsync"]
    return {
        "requests": created["requests"],
        "mb": created["bytes"] / MB,
        "parts": created["parts"],
        "in_s": created["upload_s"],
        "in_mb_per_s": created["bytes"] / MB / created["upload_s"],
        "create_s": created["create_s"],
        "first_job_s": created["first_job_s"],
        "wall_s": ended["wall_s"],
        "shards": shards,
        "commands_per_shard": commands_per_shard(ran, shards),
        "results_mb": read["results_bytes"] / MB,
        "results_s": read["results_s"],
        "results_mb_per_s": read["results_bytes"] / MB / read["results_s"],
        "pages": pages,
        "commands_per_page": stats["redis"]["total"] / pages,
        "statuses": statuses,
        "adapter_peak_mb": {step["step"]: step["peak_bytes"] // MB for step in (created, ended, read)},
        "peak_mb": {name: used["peak_rss_bytes"] // MB for name, used in stats["processes"].items()},
    }


async def _time_status(client: BatchClient, batch_id: str, calls: int) -> Mapping[str, float]:
    """Of one status: seconds (median), and bytes of its answer."""
    times: list[float] = []
    status: dict[str, Any] = {}
    for _ in range(calls):
        start_s = perf_counter()
        status = await client.call("status", id=batch_id)
        times.append(perf_counter() - start_s)
    return {"s": round(sorted(times)[calls // 2], 4), "bytes": len(json.dumps(status))}


async def _half_done(client: BatchClient, batch_id: str) -> None:
    while True:
        counts = (await client.call("status", id=batch_id))["counts"]
        if 2 * counts["pending"] <= counts["total"]:
            return
        await asyncio.sleep(POLL_S)
