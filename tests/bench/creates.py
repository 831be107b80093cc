"""How long a create takes, from its first byte to its answer: 1,000 and 10,000 requests."""

from statistics import median
from time import perf_counter

from tests.bench.batches import WIDE
from tests.bench.measure import bench_cloud, run_batch, show
from tests.client import make_requests

# A realistic prompt: about 1,000 characters beside the lead's number.
TEXT = "Write to lead {n}. " + "The lead's company, its news and its needs. " * 22


async def run(repeat: int) -> None:
    async with bench_cloud(WIDE.env) as client:
        await run_batch(client, make_requests(20))
        for size in (1000, 10_000):
            requests = make_requests(size, TEXT)
            times = []
            for _ in range(repeat):
                start_s = perf_counter()
                batch_id = (await client.call("create", stage="email", requests=requests))["id"]
                times.append(perf_counter() - start_s)
                await client.call("cancel", id=batch_id)
                await client.wait(batch_id)
                await client.call("delete", id=batch_id)
            processes = (await client.control("/stats"))["processes"]
            show(
                bench="create",
                requests=size,
                create_s=median(times),
                times_s=[round(t, 3) for t in times],
                peak_mb={name: process["peak_rss_bytes"] >> 20 for name, process in processes.items()},
            )
