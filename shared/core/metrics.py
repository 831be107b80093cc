"""Figures as metrics: one flat list of samples, as JSON and as Prometheus text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

RATE_WINDOW_MINUTES = 5


@dataclass(frozen=True)
class Sample:
    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


HELP = {
    "batches_open": ("gauge", "Batches that have not ended"),
    "batch_latency_seconds": ("histogram", "Time from a batch's create to its end"),
    "queue_batches": ("gauge", "Batches with work to hand out, by model"),
    "shards_waiting": ("gauge", "Shards submitted to the endpoint and not started, by model"),
    "shards_running": ("gauge", "Shards that workers run, by model"),
    "requests_total": ("counter", "Requests settled, by model and outcome"),
    "input_tokens_total": ("counter", "Prompt tokens read, by model"),
    "output_tokens_total": ("counter", "Tokens generated, by model"),
    "gpu_seconds_total": ("counter", "Engine busy time, by model"),
    "requests_per_second": ("gauge", "Requests settled per second over the last minutes, by model"),
    "tokens_per_second": ("gauge", "Tokens generated per second over the last minutes, by model"),
    "endpoint_up": ("gauge", "1 where the endpoint answers /health"),
    "endpoint_breaker_open": ("gauge", "1 where the endpoint's circuit breaker is not closed"),
    "endpoint_worker_deaths": ("gauge", "Workers that died since the endpoint last settled a shard"),
    "endpoint_jobs": ("gauge", "Jobs by state, as the endpoint's /health says"),
    "endpoint_workers": ("gauge", "Workers by state, as the endpoint's /health says"),
}


def rates(minutes: Mapping[int, tuple[int, int, int]], now_s: float) -> tuple[float, float]:
    """Requests and output tokens per second over the last five minutes, the running one included."""
    this = int(now_s // 60)
    first = this - RATE_WINDOW_MINUTES + 1
    recent = [figures for minute, figures in minutes.items() if first <= minute <= this]
    seconds = max(1.0, now_s - 60 * first)
    return sum(item[0] for item in recent) / seconds, sum(item[2] for item in recent) / seconds


def render(samples: Iterable[Sample], prefix: str = "llm_batch_") -> str:
    """Prometheus text exposition format, version 0.0.4."""
    lines: list[str] = []
    described: set[str] = set()
    for sample in samples:
        family = sample.name
        for suffix in ("_bucket", "_sum", "_count"):
            family = family.removesuffix(suffix)
        if family not in described:
            described.add(family)
            kind, text = HELP[family]
            lines += [f"# HELP {prefix}{family} {text}", f"# TYPE {prefix}{family} {kind}"]
        lines.append(f"{prefix}{sample.name}{_labels(sample.labels)} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def as_json(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    return [{"name": item.name, "labels": dict(item.labels), "value": item.value} for item in samples]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    """All digits: a counter rounded to six of them would stand still past a million."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
