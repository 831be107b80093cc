"""Efficiency of one worker: 200, 1,000 and 5,000 requests on an engine with 256 slots, and fewer on one with 16."""

from statistics import median

from shared.engines.simulated import SimTiming
from tests.bench.measure import (
    Setting,
    bare_sdk_bytes,
    bench_cloud,
    commands_per_shard,
    ideal_s,
    run_batch,
    show,
    time_statuses,
)
from tests.client import BatchClient, make_requests

# Processes of the service; the others stand in for the platforms.
OURS = ("batch-api", "mistral", "llama")

WIDE = Setting(SimTiming(ttft_ms=50, tpot_ms=5, slots=256), shard_requests=64)
NARROW = Setting(SimTiming(ttft_ms=50, tpot_ms=5, slots=16), shard_requests=8)


async def run(repeat: int) -> None:
    sdk_bytes = await bare_sdk_bytes()
    for setting, sizes in ((WIDE, (200, 1000, 5000)), (NARROW, (50, 200, 500))):
        async with bench_cloud(setting.env) as client:
            await run_batch(client, make_requests(20))
            for size in sizes:
                await _measure(client, setting, size, repeat, sdk_bytes)


async def _measure(client: BatchClient, setting: Setting, size: int, repeat: int, sdk_bytes: int) -> None:
    requests = make_requests(size)
    best_s = ideal_s(requests, setting.timing, setting.workers)
    runs = [await run_batch(client, requests) for _ in range(repeat)]
    last = runs[-1]
    shards = last.stats["runpod"]["mistral"]["run"]
    status_s, commands_per_status = await time_statuses(client, last.batch_id)
    wall_s = median(item.wall_s for item in runs)
    show(
        bench="batch",
        slots=setting.timing.slots,
        workers=setting.workers,
        requests=size,
        shards=shards,
        wall_s=wall_s,
        ideal_s=best_s,
        efficiency=best_s / wall_s,
        efficiencies=[round(best_s / item.wall_s, 3) for item in runs],
        seen_s=median(item.seen_s for item in runs),
        create_s=median(item.create_s for item in runs),
        status_s=status_s,
        commands_per_shard=commands_per_shard(last.stats, shards),
        commands_per_status=commands_per_status,
        cpu_ms_per_request=1000
        * sum(last.cpu_s[name] for name in last.cpu_s if name.startswith(OURS))
        / size,
        cpu_s={name: round(used_s, 2) for name, used_s in last.cpu_s.items()},
        peak_mb={name: process["peak_rss_bytes"] >> 20 for name, process in last.stats["processes"].items()},
        bare_sdk_mb=sdk_bytes >> 20,
    )
