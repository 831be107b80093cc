"""Hostile HTTP requests: a refusal in Anthropic's form or an answer, never a fault of ours, and never a trace."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract import hostile
from tests.contract.hostile import FUZZ, Deep, Long, built, mutated, places
from tests.contract.test_fuzz_operations import Edge, edge

__all__ = ["edge"]

MESSAGE = {
    "model": "claude-haiku-4-5",
    "max_tokens": 10,
    "system": [{"type": "text", "text": "s"}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    "tools": [{"name": "t", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "auto"},
    "metadata": {"user_id": "u", "stage": "email"},
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stop_sequences": ["x"],
}
BODIES: list[tuple[str, Mapping[str, Any]]] = [
    ("/v1/messages/batches", {"requests": [{"custom_id": "a", "params": MESSAGE}]}),
    ("/v1/messages/batches", {"upload": {"key": "k", "parts": 2}}),
]
CALL = {
    "operation": "http",
    "method": "GET",
    "path": "/v1/messages/batches/OPEN/results",
    "query": {"page": "1", "partial": "true", "limit": "2", "after_id": "OPEN"},
    "headers": {"host": "h", "x-batch-priority": "low", "idempotency-key": "k"},
}
STATUSES = {400, 404, 405, 409, 413}


async def check(edge: Edge, job_input: Any) -> None:
    """An error of the operation is for what is no HTTP request; any other refusal is a response. Neither leaves a
    trace."""
    before = await edge.trace()
    answer = await edge.send(job_input)
    if "error" in answer:
        hostile.check_error(answer["error"])
    elif answer["status_code"] != 200:
        assert answer["status_code"] in STATUSES
        body = json.loads(answer["body"])
        assert body["type"] == "error"
        assert len(body["error"]["message"]) <= hostile.MESSAGE_MAX_CHARS
        assert await edge.trace() == before


def posted(path: str, body: Any) -> dict[str, Any]:
    try:
        text = json.dumps(body)
    except (TypeError, RecursionError):
        text = "[" * 100_000
    return {"operation": "http", "method": "POST", "path": path, "body": text}


@FUZZ
@given(mutated(CALL))
async def test_a_hostile_envelope_is_refused_or_answered(edge: Edge, job_input: dict[str, Any]) -> None:
    await check(edge, edge.made(job_input))


@FUZZ
@given(st.sampled_from(BODIES).flatmap(lambda call: st.tuples(st.just(call[0]), mutated(call[1]))))
async def test_a_hostile_body_is_refused_or_made(edge: Edge, call: tuple[str, dict[str, Any]]) -> None:
    path, body = call
    await check(edge, posted(path, edge.made(body)))


@pytest.mark.parametrize("value", [Long(5000), Deep(500), 2**64 - 1, {"a": {}}, None], ids=str)
async def test_whatever_stands_at_any_place_of_any_body_is_refused_or_taken(edge: Edge, value: Any) -> None:
    for path, body in BODIES:
        for number in range(len(list(places(body)))):
            made = edge.made(body)
            container, name = list(places(made))[number]
            container[name] = built(value)
            await check(edge, posted(path, made))
