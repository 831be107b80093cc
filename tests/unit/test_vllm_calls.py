"""Calls that must never reach vLLM, because they end its engine."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.mistral.model import CARD
from shared.config import VllmConfig
from shared.engines.vllm_engine import VllmEngine
from shared.ports.engine import Call

VOCABULARY = 768


@pytest.fixture
def engine() -> VllmEngine:
    made = VllmEngine(CARD, VllmConfig(None, None, None, "/none", "", ()))
    model_config = SimpleNamespace(get_vocab_size=lambda: VOCABULARY)
    made._llm = SimpleNamespace(errored=False, vllm_config=SimpleNamespace(model_config=model_config))
    return made


async def refused(engine: VllmEngine, path: str, body: dict[str, Any]) -> str:
    reply = await engine.call(Call("POST", path, body))
    [answer] = [chunk async for chunk in reply.chunks]
    assert reply.status_code == 400
    message: str = json.loads(answer)["error"]["message"]
    return message


@pytest.mark.parametrize("embeds", ["", "AAAA", ["AAAA"]], ids=str)
async def test_embeddings_are_refused_unopened(engine: VllmEngine, embeds: Any) -> None:
    assert "prompt_embeds" in await refused(engine, "/v1/completions", {"prompt_embeds": embeds})


@pytest.mark.parametrize("ids", [[VOCABULARY], [-1], [2**63], ["1000000"], [1e6], "7", [True]], ids=str)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stop_token_that_the_model_does_not_have_is_refused(
    engine: VllmEngine, path: str, ids: Any
) -> None:
    assert "stop_token_ids" in await refused(engine, path, {"min_tokens": 4, "stop_token_ids": ids})


async def test_a_schema_with_too_many_patterns_to_guide_by_is_refused(engine: VllmEngine) -> None:
    schema = {"allOf": [{"type": "string", "pattern": f"a{number}"} for number in range(17)]}
    body = {
        "messages": [],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    }
    assert "16 patterns" in await refused(engine, "/v1/chat/completions", body)


async def test_an_app_that_could_not_be_built_is_built_again_at_the_next_call(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    async def build(llm: Any, arguments: Any) -> Any:
        built.append("once more")
        raise OSError("no room for a moment")

    monkeypatch.setattr("shared.engines.vllm_server.build_openai_app", build)
    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            await engine.call(Call("GET", "/v1/models"))
    assert len(built) == 2
