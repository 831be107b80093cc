"""`health` and `metrics`: what the service stands on, and how it is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from time import monotonic
from typing import Any

from shared.core.metrics import Sample, as_json, rates, render
from shared.errors import PlatformError
from shared.ports.jobs import Jobs
from shared.ports.monitor import Breaker, Figures, ModelFigures, Monitor
from shared.ports.payloads import Payloads
from shared.ports.state import Endpoint

CHECK_TIMEOUT_S = 5.0


class Observer:
    def __init__(
        self, monitor: Monitor, payloads: Payloads, jobs: Jobs, endpoints: Sequence[Endpoint]
    ) -> None:
        self._monitor = monitor
        self._payloads = payloads
        self._jobs = jobs
        self._endpoints = endpoints
        self._started_s = monotonic()

    async def health(self) -> dict[str, Any]:
        """`ready` is true where Redis, storage and every model endpoint answer and no endpoint's workers keep dying;
        beside it what each one said."""
        (redis, breakers), storage, endpoints = await asyncio.gather(
            self._state(),
            _answers(self._payloads.check()),
            asyncio.gather(*(self._endpoint(endpoint) for endpoint in self._endpoints)),
        )
        dying = any(breaker.cause == "deaths" for breaker in breakers.values())
        return {
            "ready": not dying and all(part["ok"] for part in (redis, storage, *endpoints)),
            "uptime_s": round(monotonic() - self._started_s, 3),
            "redis": redis,
            "storage": storage,
            "endpoints": {
                endpoint.model: {"id": endpoint.id, **part, "breaker": _view(breakers.get(endpoint.id))}
                for endpoint, part in zip(self._endpoints, endpoints, strict=True)
            },
        }

    async def metrics(self) -> dict[str, Any]:
        """`{"metrics": [{name, labels, value}], "prometheus": text}`, the same figures twice."""
        figures, breakers, endpoints = await asyncio.gather(
            self._monitor.figures(),
            self._monitor.breakers(),
            asyncio.gather(*(self._endpoint(endpoint) for endpoint in self._endpoints)),
        )
        samples = _batch_samples(figures)
        for model in figures.models:
            samples += _model_samples(model, figures.now_s)
        for endpoint, part in zip(self._endpoints, endpoints, strict=True):
            samples += _endpoint_samples(endpoint, part, breakers[endpoint.id])
        samples.sort(key=lambda sample: sample.name)
        return {"metrics": as_json(samples), "prometheus": render(samples)}

    async def _state(self) -> tuple[dict[str, Any], Mapping[str, Breaker]]:
        """What Redis answers, and the breakers that it holds."""
        said = await _answers(self._monitor.breakers())
        breakers = {name: value for name, value in said.items() if isinstance(value, Breaker)}
        return {name: value for name, value in said.items() if name not in breakers}, breakers

    async def _endpoint(self, endpoint: Endpoint) -> dict[str, Any]:
        return await _answers(self._jobs.health(endpoint))


async def _answers(check: Awaitable[Any]) -> dict[str, Any]:
    """`{"ok": true}`, with what the check returned where that is an object, or `{"ok": false, "error"}`."""
    try:
        said = await asyncio.wait_for(check, CHECK_TIMEOUT_S)
    except PlatformError as error:
        return {"ok": False, "error": error.message}
    except asyncio.TimeoutError:
        return {"ok": False, "error": f"no answer within {CHECK_TIMEOUT_S:g} s"}
    return {"ok": True, **said} if isinstance(said, Mapping) else {"ok": True}


def _view(breaker: Breaker | None) -> dict[str, Any] | None:
    """None where Redis did not answer."""
    if breaker is None:
        return None
    return {
        "state": breaker.state,
        "cause": breaker.cause or None,
        "resting_s": round(breaker.resting_ms / 1000, 1),
        "refusals": breaker.refusals,
        "worker_deaths": breaker.deaths,
    }


def _batch_samples(figures: Figures) -> list[Sample]:
    edges = sorted(figures.latency_le)
    return [
        Sample("batches_open", figures.open_batches),
        *(
            Sample("batch_latency_seconds_bucket", figures.latency_le[edge], {"le": str(edge)})
            for edge in edges
        ),
        Sample("batch_latency_seconds_bucket", figures.ended_batches, {"le": "+Inf"}),
        Sample("batch_latency_seconds_count", figures.ended_batches),
        Sample("batch_latency_seconds_sum", figures.latency_sum_s),
    ]


def _model_samples(model: ModelFigures, now_s: float) -> list[Sample]:
    labels = {"model": model.model}
    requests_per_s, tokens_per_s = rates(model.minutes, now_s)
    outcomes = ("succeeded", "errored", "canceled", "expired")
    return [
        Sample("queue_batches", model.queued_batches, labels),
        Sample("shards_waiting", model.waiting, labels),
        Sample("shards_running", model.running, labels),
        *(
            Sample("requests_total", model.counters.get(outcome, 0), {**labels, "outcome": outcome})
            for outcome in outcomes
        ),
        Sample("input_tokens_total", model.counters.get("input_tokens", 0), labels),
        Sample("output_tokens_total", model.counters.get("output_tokens", 0), labels),
        Sample("gpu_seconds_total", model.counters.get("gpu_ms", 0) / 1000, labels),
        Sample("requests_per_second", round(requests_per_s, 4), labels),
        Sample("tokens_per_second", round(tokens_per_s, 4), labels),
    ]


def _endpoint_samples(endpoint: Endpoint, said: Mapping[str, Any], breaker: Breaker) -> list[Sample]:
    labels = {"model": endpoint.model, "endpoint": endpoint.id}
    samples = [
        Sample("endpoint_up", float(said["ok"]), labels),
        Sample("endpoint_breaker_open", float(breaker.state != "closed"), labels),
        Sample("endpoint_worker_deaths", breaker.deaths, labels),
    ]
    for group in ("jobs", "workers"):
        states = said.get(group)
        if isinstance(states, Mapping):
            samples += [
                Sample(f"endpoint_{group}", float(number), {**labels, "state": str(state)})
                for state, number in states.items()
                if isinstance(number, int)
            ]
    return samples
