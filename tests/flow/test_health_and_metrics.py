"""What the service says about itself, held against what really happened."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from tests.client import BatchClient, make_requests
from tests.flow.cloud import connected, eventually, flow_cloud, wait_for_worker
from tests.flow.prometheus import parse_metrics

PREFIX = "llm_batch_"
MODELS = ("mistral", "llama-70b")
CLOSED = {"state": "closed", "cause": None, "resting_s": 0, "refusals": 0, "worker_deaths": 0}


async def test_a_whole_service_is_ready(client: BatchClient) -> None:
    for endpoint, stage in (("mistral", "email"), ("llama", "polish")):
        await wait_for_worker(client, endpoint)
        # Whatever died before, an endpoint that settles a shard works.
        batch = await client.call("create", stage=stage, requests=make_requests(1))
        await client.wait(batch["id"])
    health = await client.call("health")
    assert health.keys() == {"ready", "uptime_s", "redis", "storage", "endpoints"}
    assert health["ready"] is True
    assert health["uptime_s"] > 0
    assert health["redis"] == health["storage"] == {"ok": True}
    assert health["endpoints"].keys() == set(MODELS)
    for endpoint in health["endpoints"].values():
        assert endpoint["ok"] is True
        assert endpoint["workers"]["ready"] == 1
        assert endpoint["breaker"] == CLOSED


async def test_a_service_that_lost_a_part_names_it(tmp_path: Path) -> None:
    env = {"LOCAL_WORKERS": "mistral=1,llama=0"}
    async with flow_cloud(tmp_path, **env) as cloud, connected(cloud) as client:
        health = await client.call("health")
        assert health["ready"] is True, "an endpoint scaled to zero still answers"
        assert health["endpoints"]["llama-70b"]["workers"]["ready"] == 0
        await client.control("/workers", {"endpoint": "mistral", "count": 0})

        async def drained() -> bool:
            said = (await client.call("health"))["endpoints"]["mistral"]
            return bool(said["ok"] and said["workers"]["ready"] == 0)

        await eventually(drained, "mistral answers without a worker")

        processes = (await client.control("/stats"))["processes"]
        os.kill(processes["s3"]["pid"], signal.SIGKILL)
        health = await client.call("health")
        assert (health["ready"], health["redis"]["ok"], health["storage"]["ok"]) == (False, True, False)
        assert "storage did not answer" in health["storage"]["error"]

        os.kill(processes["redis-rest"]["pid"], signal.SIGKILL)
        health = await client.call("health")
        assert (health["ready"], health["redis"]["ok"]) == (False, False)
        assert health["redis"]["error"]
        assert all(endpoint["ok"] for endpoint in health["endpoints"].values())
        assert all(endpoint["breaker"] is None for endpoint in health["endpoints"].values())


async def counters(client: BatchClient) -> Counter[tuple[str, str]]:
    """The JSON figures by (name, labels), after the Prometheus text was found to say the same."""
    answer = await client.call("metrics")
    assert answer.keys() == {"metrics", "prometheus"}
    figures: Counter[tuple[str, str]] = Counter()
    for item in answer["metrics"]:
        assert item.keys() == {"name", "labels", "value"}
        labels = ",".join(f"{name}={value}" for name, value in sorted(item["labels"].items()))
        assert (item["name"], labels) not in figures
        figures[item["name"], labels] = item["value"]
    families = parse_metrics(answer["prometheus"])
    text = {
        (name, ",".join(f"{label}={value}" for label, value in labels)): value
        for family in families.values()
        for (name, labels), value in family.samples.items()
    }
    assert text == {(PREFIX + name, labels): value for (name, labels), value in figures.items()}
    for name, family in families.items():
        assert (family.kind == "counter") == name.endswith("_total"), name
    assert families[f"{PREFIX}batch_latency_seconds"].kind == "histogram"
    return figures


async def test_the_counters_grow_by_exactly_what_ran(client: BatchClient) -> None:
    requests: list[dict[str, Any]] = make_requests(30)
    for request in requests[20:]:
        request["metadata"] = {"model_hint": "llama-70b"}
    requests[3]["params"]["messages"][0]["content"] += " [[error]]"

    async def idle() -> Counter[tuple[str, str]] | None:
        figures = await counters(client)
        return None if figures["batches_open", ""] else figures

    before = await eventually(idle, "no batch of another test is open")
    assert before is not None
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    await client.wait(batch_id)
    after = await counters(client)
    grown = {key: after[key] - before[key] for key in after}

    lines = await client.lines(batch_id)
    for model in MODELS:
        of_model = [line for line in lines if line["model"] == model]
        statuses = Counter(line["status"] for line in of_model)
        for outcome in ("succeeded", "errored", "canceled", "expired"):
            assert grown["requests_total", f"model={model},outcome={outcome}"] == statuses[outcome]
        for name in ("input_tokens", "output_tokens"):
            tokens = sum(line["usage"][name] for line in of_model if line["usage"])
            assert grown[f"{name}_total", f"model={model}"] == tokens
        assert grown["gpu_seconds_total", f"model={model}"] > 0
        assert after["requests_per_second", f"model={model}"] > 0
        assert after["tokens_per_second", f"model={model}"] > 0
        for gauge in ("queue_batches", "shards_waiting", "shards_running"):
            assert after[gauge, f"model={model}"] == 0
    assert after["batches_open", ""] == 0
    for name in ("batch_latency_seconds_count", "batch_latency_seconds_sum"):
        assert grown[name, ""] > 0
    assert grown["batch_latency_seconds_count", ""] == grown["batch_latency_seconds_bucket", "le=+Inf"] == 1
    edges = [
        (float(labels.removeprefix("le=")), count)
        for (name, labels), count in after.items()
        if name == "batch_latency_seconds_bucket"
    ]
    counts = [count for _, count in sorted(edges)]
    assert counts == sorted(counts), "buckets are cumulative"
