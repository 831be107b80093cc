"""`./build.sh smoke --load`: latency for 512 tokens, requests per second and the lead run, against the targets.

Per model three measurements: single calls of the model endpoint's OpenAI route, a batch that fits the engine of one
worker (both for latency), and a batch that keeps it full (for requests per second).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from tests.smoke.endpoint import Endpoint, Json, NoAnswer, http_client
from tests.smoke.figures import HEAD, Measured
from tests.smoke.leads import run_leads
from tests.smoke.report import Report, Unexpected
from tests.smoke.run import removed_afterwards
from tests.smoke.service import Refused, Service
from tests.smoke.settings import MODEL_VARIABLES, LoadSection, ModelLoad, Settings

LATENCY = ("median_s", "p95_s")
THROUGHPUT = ("requests_per_s",)


async def measure(settings: Settings, report: Report) -> bool:
    """True if every request succeeded and every target was met."""
    wanted = settings.file.load
    async with http_client() as client:
        service = Service(
            Endpoint(client, settings.batch_url, settings.api_key), wanted.wait_s, wanted.poll_s
        )
        endpoints = {
            model: Endpoint(client, url, settings.api_key) for model, url in settings.model_urls.items()
        }
        report.say(await _say_engine(wanted, endpoints))
        async with removed_afterwards(service, report) as left:
            try:
                met = await measure_models(service, endpoints, wanted, report)
                met = await run_leads(service, wanted.leads, report) and met
            except (Refused, NoAnswer, Unexpected) as reason:
                report.say(f"stopped: {reason}")
                met = False
    report.say("every target was met" if met else "not every target was met")
    return met and not left


async def measure_models(
    service: Service, endpoints: dict[str, Endpoint], wanted: LoadSection, report: Report
) -> bool:
    rows: list[tuple[str, ...]] = [HEAD]
    met = True
    for model, load in wanted.models.items():
        run = ModelRun(service, model, load, wanted)
        report.say(f"{model}: waking it up took {await run.wake():.1f} s")
        measured: list[tuple[Measured, Sequence[str]]] = []
        if endpoint := endpoints.get(model):
            try:
                measured.append((await run.single_calls(endpoint), LATENCY))
            except NoAnswer as reason:
                report.say(f"{model}: no single calls: {reason}")
        else:
            report.say(f"{model}: no single calls: {MODEL_VARIABLES.get(model)} is not set")
        measured.append((await run.batch("batch that fits", load.latency_requests), LATENCY))
        measured.append((await run.batch("full batch", load.requests), THROUGHPUT))
        for figures, judged in measured:
            misses = figures.misses(load.targets, judged)
            met = met and not misses
            rows.append(figures.row("; ".join(misses) or "met"))
    report.table(rows)
    return met


async def _say_engine(wanted: LoadSection, endpoints: dict[str, Endpoint]) -> str:
    """The label of the figures. The simulated engine names itself in a model endpoint's list of models."""
    label = wanted.engine
    if label == "auto":
        lists = [await _model_list(endpoint) for endpoint in endpoints.values()]
        label = (
            "simulated" if any("simulated" in text for text in lists) else "real" if any(lists) else "auto"
        )
    return {
        "simulated": "Simulated engine: a timing model stands in for the GPUs. No figure here was measured on one.",
        "real": "Real engine.",
        "auto": "Engine unknown: no model endpoint gave its list of models; load.engine in the configuration says it.",
    }[label]


async def _model_list(endpoint: Endpoint) -> str:
    try:
        answer = await endpoint.send("GET", "openai/v1/models")
    except NoAnswer:
        return ""
    return answer.text if answer.status_code == 200 and "data" in answer.fields else ""


@dataclass(frozen=True)
class ModelRun:
    """The measurements of one model."""

    service: Service
    model: str
    load: ModelLoad
    wanted: LoadSection

    async def wake(self) -> float:
        """Seconds of one small request: a cold start counts here and in no figure."""
        began_s = monotonic()
        await self.service.complete(None, [self._request(0, max_tokens=8)])
        return monotonic() - began_s

    async def batch(self, name: str, count: int) -> Measured:
        requests = [self._request(n) for n in range(count)]
        status, lines = await self.service.complete(None, requests)
        done = [line for line in lines if line["status"] == "succeeded"]
        wall_s = seconds_between(status["created_at"], status["ended_at"])
        latencies_s = [line["latency_ms"] / 1000 for line in done]
        tokens = [line["usage"]["output_tokens"] for line in done]
        return Measured(f"{self.model}: {name}", count, latencies_s, tokens, wall_s)

    async def single_calls(self, endpoint: Endpoint) -> Measured:
        """Raises NoAnswer where the first call is answered with no completion."""
        gate = asyncio.Semaphore(self.load.at_once)

        async def timed(number: int) -> tuple[float, int] | None:
            async with gate:
                began_s = monotonic()
                completion = await self._complete(endpoint, number, self.wanted.max_tokens)
                if completion is None:
                    return None
                return monotonic() - began_s, completion["usage"]["completion_tokens"]

        if await self._complete(endpoint, 0, 8) is None:
            raise NoAnswer("the endpoint's OpenAI route gives no completion")
        began_s, count = monotonic(), self.load.single_calls
        done = [timing for timing in await asyncio.gather(*map(timed, range(count))) if timing]
        latencies_s, tokens = [seconds for seconds, _ in done], [number for _, number in done]
        name = f"{self.model}: single calls, {self.load.at_once} at once"
        return Measured(name, count, latencies_s, tokens, monotonic() - began_s)

    async def _complete(self, endpoint: Endpoint, number: int, max_tokens: int) -> Json | None:
        params = self._request(number, max_tokens)["params"]
        try:
            answer = await endpoint.send(
                "POST", "openai/v1/chat/completions", {"model": self.model, **params}
            )
        except NoAnswer:
            return None
        return answer.fields if answer.status_code == 200 and answer.fields.get("choices") else None

    def _request(self, number: int, max_tokens: int | None = None) -> Json:
        # Each its own, so that no prefix cache answers for the model.
        content = f"({number}) {self.wanted.prompt.format(company=f'Company {number}')}"
        messages = [{"role": "user", "content": content}]
        params = {"messages": messages, "max_tokens": max_tokens or self.wanted.max_tokens}
        return {
            "custom_id": f"load_{number}",
            "params": params,
            "metadata": {"model_hint": self.model},
        }


def seconds_between(start: str, end: str) -> float:
    """Between two times as `status` gives them."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
