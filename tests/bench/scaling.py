"""Throughput of 4 workers over that of 1: an engine slow enough that two cores don't bound it."""

from statistics import median

from shared.engines.simulated import SimTiming
from tests.bench.measure import Setting, bench_cloud, ideal_s, run_batch, show
from tests.client import make_requests

SLOW = SimTiming(ttft_ms=100, tpot_ms=10, slots=16)
REQUESTS = 640


async def run(repeat: int) -> None:
    requests = make_requests(REQUESTS)
    walls_s: dict[int, float] = {}
    for workers in (1, 4):
        setting = Setting(SLOW, shard_requests=8, workers=workers)
        async with bench_cloud(setting.env) as client:
            await run_batch(client, make_requests(20))
            runs = [(await run_batch(client, requests)).wall_s for _ in range(repeat if workers > 1 else 1)]
        walls_s[workers] = median(runs)
        show(
            bench="scaling",
            workers=workers,
            slots=SLOW.slots,
            requests=REQUESTS,
            wall_s=walls_s[workers],
            efficiency=ideal_s(requests, SLOW, workers) / walls_s[workers],
            speedup=walls_s[1] / walls_s[workers],
        )
