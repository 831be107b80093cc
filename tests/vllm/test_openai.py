"""The OpenAI surface of both model endpoints on real vLLM, asked through the official SDK."""

import json
from typing import Any

import openai
import pytest

from handlers.catalog import CARDS
from tests.flow.cloud import FlowCloud
from tests.openai_suite import OpenAIServer, OpenAISuite

RATE: Any = {
    "type": "function",
    "function": {
        "name": "rate",
        "parameters": {
            "type": "object",
            "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}},
            "required": ["score"],
            "additionalProperties": False,
        },
    },
}
NAMED: Any = {"type": "function", "function": {"name": "rate"}}


@pytest.fixture(params=["mistral", "llama"])
def server(request: pytest.FixtureRequest, cloud: FlowCloud) -> OpenAIServer:
    [card] = [card for card in CARDS if card.name.startswith(request.param)]
    exact = [alias for alias in card.aliases if "*" not in alias]
    names = dict.fromkeys([card.name, card.repository, *exact])
    return OpenAIServer(
        cloud.worker_env[f"{card.env_prefix}_BASE_URL"], cloud.address["api_key"], tuple(names)
    )


class TestOpenAI(OpenAISuite):
    async def test_a_tool_that_must_be_called_is(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        answer = await client.chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=200,
            tools=[RATE],
            tool_choice=NAMED,
        )
        [call] = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "rate"
        assert 1 <= json.loads(call.function.arguments)["score"] <= 5

    async def test_the_model_may_call_a_tool_or_not(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        answer = await client.chat.completions.create(
            model=server.model,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=8,
            tools=[RATE],
            tool_choice="auto",
        )
        assert answer.choices[0].finish_reason in ("length", "stop", "tool_calls")
