"""Hostile input to every operation, through the handler's edge: a typed 4xx or an answer, and never a trace."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio
import runpod
from hypothesis import given
from hypothesis import strategies as st

from handlers.drain import Drain
from handlers.entry import serve
from shared.adapters.upstash import Upstash
from shared.flow.submission import Limits
from tests.contract import hostile
from tests.contract.hostile import CALL_LIMIT_S, FUZZ, Deep, Long, built, mutated, places, read_again
from tests.contract.service import Service, build
from tests.contract.state import Store

REQUEST = {
    "custom_id": "lead_1",
    "params": {
        "system": "s",
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
        "max_tokens": 10,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "stop": ["x"],
        "stop_sequences": ["y"],
        "seed": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "repetition_penalty": 1,
        "min_tokens": 0,
        "ignore_eos": False,
        "model": "mistral",
        "on_invalid": "retry",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}},
        },
        "other": {"kept": [1]},
    },
    "metadata": {"model_hint": "mistral", "lead": 7},
}
CREATE = {
    "operation": "create",
    "stage": "email",
    "priority": "low",
    "idempotency_key": "key",
    "expires_in_s": 3600,
    "requests": [REQUEST, {**REQUEST, "custom_id": "lead_2"}],
}
JOB = {"batch": "OPEN", "shard": 0, "attempt": 1, "endpoint": "mistral-ep"}
WEBHOOK = {
    "id": "job-1",
    "status": "COMPLETED",
    "input": JOB,
    "output": [{"state": "settled"}],
    "delayTime": 1,
}
UPLOAD = {
    "operation": "upload",
    "upload": "key",
    "part": 1,
    "stage": "email",
    "expires_in_s": 3600,
    "requests": [REQUEST],
}
FROM_UPLOAD = {
    "operation": "create",
    "upload": "whole",
    "parts": 1,
    "stage": "email",
    "priority": "low",
    "idempotency_key": "from upload",
    "expires_in_s": 3600,
}
# OPEN, ENDED and SPARE stand for the ids of three batches.
CALLS: list[Mapping[str, Any]] = [
    CREATE,
    UPLOAD,
    FROM_UPLOAD,
    *({"operation": name, "id": "ENDED"} for name in ("status", "cancel")),
    *({"operation": name, "id": "OPEN"} for name in ("status", "delete")),
    {"operation": "delete", "id": "SPARE"},
    {"operation": "retry_failed", "id": "ENDED", "idempotency_key": "again"},
    {"operation": "results", "id": "OPEN", "page": "1", "partial": True},
    {"operation": "results", "id": "ENDED", "page": None, "partial": False},
    {"operation": "list", "limit": 5, "page": f"1:batch_{0:024x}"},
    {"operation": "webhook", "body": WEBHOOK},
    {"operation": "reconcile"},
    {"operation": "health"},
    {"operation": "metrics"},
    {"operation": "unknown", "id": "OPEN"},
]


@dataclass(frozen=True)
class Edge:
    """The batch handler as the SDK calls it, over a store with an open and two ended batches."""

    service: Service
    handler: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
    ids: Mapping[str, str]

    async def send(self, job_input: Any) -> dict[str, Any]:
        """The handler's answer, after checking that it can be sent and came in time."""
        began_s = monotonic()
        answer = await asyncio.wait_for(self.handler({"id": "job-1", "input": job_input}), CALL_LIMIT_S)
        assert monotonic() - began_s < CALL_LIMIT_S
        json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
        return answer

    def made(self, value: Any) -> Any:
        """The input that stands for itself, with the ids of the store's batches."""
        if isinstance(value, dict):
            return {name: self.made(item) for name, item in value.items()}
        return self.ids.get(value, value) if isinstance(value, str) else built(value)

    async def trace(self) -> dict[str, Any]:
        """What is stored, but for what ends by itself, when all that was begun is done."""
        while under_way := self.service.feeder.under_way():
            await asyncio.wait(under_way)
        dump = await self.service.store.dump()
        return {name: value for name, value in dump.items() if not name.startswith("claim:")}

    async def check(self, job_input: Any) -> None:
        before = await self.trace()
        answer = await self.send(job_input)
        if "error" in answer:
            hostile.check_error(answer["error"])
            assert await self.trace() == before


@pytest_asyncio.fixture
async def edge(redis: Upstash, monkeypatch: pytest.MonkeyPatch) -> Edge:
    # One sweep at the first look and none later: whatever changes is a call's own doing.
    service = build(Store(redis, tick_ms=3_600_000), Limits(max_requests=50, max_batch_bytes=100_000))
    configs: list[dict[str, Any]] = []
    monkeypatch.setattr(runpod.serverless, "start", configs.append)
    serve(lambda job: service.operations.handle(job.get("input")), 1, Drain(0.0, lambda: None))
    ids = {}
    for name in ("OPEN", "ENDED", "SPARE"):
        made = await service.operations.handle({**CREATE, "idempotency_key": name})
        ids[name] = str(made["id"])
        if name != "OPEN":
            await service.operations.handle({"operation": "cancel", "id": ids[name]})
    await service.operations.handle({**UPLOAD, "upload": "whole", "part": 0})
    await service.operations.handle({"operation": "status", "id": ids["OPEN"]})
    return Edge(service, configs[0]["handler"], ids)


async def test_the_calls_that_are_changed_are_valid_ones(edge: Edge) -> None:
    refused = [call["operation"] for call in CALLS if "error" in await edge.send(edge.made(call))]
    # In the wrong state, or for an operation that is none.
    assert refused == ["cancel", "delete", "retry_failed", "unknown"]


@FUZZ
@given(st.sampled_from(CALLS).flatmap(mutated), st.booleans())
async def test_hostile_input_is_refused_by_name_or_answered_and_a_refusal_leaves_no_trace(
    edge: Edge, job_input: dict[str, Any], as_text: bool
) -> None:
    made = edge.made(job_input)
    await edge.check(read_again(made) if as_text else made)


@FUZZ
@given(mutated(CREATE))
async def test_a_hostile_create_is_refused_by_name_or_made(edge: Edge, job_input: dict[str, Any]) -> None:
    await edge.check(edge.made(job_input))


@pytest.mark.parametrize("value", [None, [], "create", 7, float("nan"), [{}], Deep(100_000)], ids=str)
async def test_an_input_that_is_no_object_is_refused(edge: Edge, value: Any) -> None:
    answer = await edge.send(built(value))
    assert hostile.check_error(answer["error"]) == 400


@pytest.mark.parametrize("text", [Long(20_000_000), Deep(100_000)], ids=str)
async def test_what_is_far_too_long_or_deep_is_refused_at_every_place_of_every_call(
    edge: Edge, text: Any
) -> None:
    before = await edge.trace()
    for call in CALLS:
        for number in range(len(list(places(call)))):
            payload = edge.made(call)
            container, name = list(places(payload))[number]
            container[name] = built(text)
            hostile.check_error((await edge.send(payload))["error"])
    assert await edge.trace() == before


@pytest.mark.parametrize("value", [Long(5000), 2**64 - 1, {"a": {}}], ids=str)
async def test_a_refusal_is_short_whatever_stands_at_any_place_of_any_call(edge: Edge, value: Any) -> None:
    for call in CALLS:
        for number in range(len(list(places(call)))):
            payload = edge.made(call)
            container, name = list(places(payload))[number]
            container[name] = built(value)
            answer = await edge.send(payload)
            if "error" in answer:
                hostile.check_error(answer["error"])
