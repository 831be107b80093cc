"""Hostile input to a model endpoint, through its handler's edge: a typed error or an answer, and no hang."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
import runpod
from hypothesis import given
from hypothesis import strategies as st

from handlers.catalog import CARDS
from handlers.entry import serve_stream
from handlers.model_worker import Handler
from shared.config import load_settings
from shared.engines.catalog import build_engine
from tests.conftest import UpstashAddress
from tests.contract.hostile import CALL_LIMIT_S, FUZZ, Deep, Long, built, check_error, mutated, read_again
from tests.contract.state import Store, new_id

USER = {"role": "user", "content": "hi"}
BODY = {
    "model": "mistral",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ],
    "max_tokens": 3,
    "temperature": 0.1,
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "n": 1,
}
CALLS: list[Mapping[str, Any]] = [
    {"batch": "GONE", "shard": 0, "attempt": 1, "endpoint": "mistral-ep"},
    {"openai_route": "/v1/chat/completions", "openai_input": BODY},
    {"openai_route": "/v1/completions", "openai_input": {"prompt": ["hi"], "max_tokens": 3}},
    {"openai_route": "/v1/models"},
    {
        "prompt": "hi",
        "sampling_params": {"max_tokens": 3, "n": 1, "stop": ["x"]},
        "apply_chat_template": True,
    },
    {"messages": [USER], "stream": True, "sampling_params": {"max_tokens": 3, "temperature": 0}},
]
OPENAI_ERROR_MAX_CHARS = 2000


@dataclass(frozen=True)
class Edge:
    """The Mistral handler as the SDK calls it, on a simulated engine."""

    handler: Callable[[dict[str, Any]], AsyncGenerator[Any, None]]
    gone: str

    async def send(self, job_input: Any) -> list[Any]:
        """What the handler yields, after checking that it can be sent and came in time."""

        async def chunks() -> list[Any]:
            return [chunk async for chunk in self.handler({"id": "job-1", "input": job_input})]

        answer = await asyncio.wait_for(chunks(), CALL_LIMIT_S)
        json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
        return answer

    async def check(self, job_input: Any) -> None:
        answer = await self.send(job_input)
        if isinstance(answer[-1], dict) and "error" in answer[-1]:
            check_refusal(answer[-1]["error"])


def check_refusal(text: str) -> None:
    """One of our errors, or the engine's own in OpenAI's form."""
    if '"request_id"' in text:
        assert check_error(text) < 500
        return
    assert len(text) <= OPENAI_ERROR_MAX_CHARS
    error = json.loads(text)["error"]
    assert 400 <= error["code"] < 500, text
    error["message"].encode()


@pytest_asyncio.fixture
async def edge(
    store: Store, upstash_server: UpstashAddress, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Edge]:
    configs: list[dict[str, Any]] = []
    monkeypatch.setattr(runpod.serverless, "start", configs.append)
    nowhere = "http://127.0.0.1:9/v2"
    env = {
        "RUNPOD_API_KEY": "key",
        "UPSTASH_REDIS_REST_URL": upstash_server.url,
        "UPSTASH_REDIS_REST_TOKEN": upstash_server.token,
        "MISTRAL_BASE_URL": f"{nowhere}/mistral-ep",
        "LLAMA_BASE_URL": f"{nowhere}/llama-ep",
        "ENGINE": "simulated",
        "SIM_TTFT_MS": "0",
        "SIM_TPOT_MS": "0",
    }
    settings = load_settings(env, CARDS)
    [card] = [card for card in CARDS if card.name == "mistral"]
    handler = Handler(card, settings, build_engine(settings, card), 4)
    serve_stream(handler.work, 4, handler.drain)
    yield Edge(configs[0]["handler"], new_id())
    # What the handler began in the background, before the loop goes.
    while under_way := [task for task in handler._feeding() if isinstance(task, asyncio.Task)]:
        await asyncio.wait(under_way)


async def test_the_calls_that_are_changed_are_answered(edge: Edge) -> None:
    for call in CALLS:
        [first, *_] = await edge.send({**call, **({"batch": edge.gone} if "batch" in call else {})})
        assert "error" not in first, call


@FUZZ
@given(st.sampled_from(CALLS).flatmap(mutated), st.booleans())
async def test_hostile_input_to_a_model_is_refused_or_answered(
    edge: Edge, job_input: dict[str, Any], as_text: bool
) -> None:
    if job_input.get("batch") == "GONE":
        job_input["batch"] = edge.gone
    made = built(job_input)
    await edge.check(read_again(made) if as_text else made)


@pytest.mark.parametrize("text", [Long(20_000_000), Deep(100_000)], ids=str)
@pytest.mark.parametrize("call", CALLS, ids="-".join)
async def test_what_is_far_too_long_or_deep_is_refused_at_every_field(
    edge: Edge, call: Mapping[str, Any], text: Any
) -> None:
    for name in call:
        [answer] = await edge.send({**call, name: built(text)})
        check_refusal(answer["error"])


@pytest.mark.parametrize("value", [[], [{}], "shard", 7, float("nan"), Deep(100_000)], ids=str)
async def test_an_input_that_is_no_object_is_refused_by_a_model(edge: Edge, value: Any) -> None:
    [answer] = await edge.send(built(value))
    assert check_error(answer["error"]) == 400
