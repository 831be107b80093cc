"""Tools on real vLLM, with both tiny models: offered, called because they must be, read from what a model writes."""

import json
import logging
from typing import Any

import jsonschema
import pytest
from transformers import AutoTokenizer

from handlers.catalog import CARDS
from shared.core.tools import Offer, offer_of
from shared.engines.chat_template import ChatTemplate
from shared.engines.vllm_tools import PARSERS, ToolReader
from shared.errors import EngineDead
from tests.client import BatchClient
from tests.vllm.local import MODELS
from tests.vllm.test_batches import request, run

NAMES = ("mistral", "llama-70b")
TINY = {"mistral": "mistral", "llama-70b": "llama"}
PARSER = {card.name: card.tool_parser for card in CARDS}
RATE = {
    "name": "rate_lead",
    "description": "Rate a lead.",
    "input_schema": {
        "type": "object",
        "properties": {
            "score": {"$ref": "#/$defs/score"},
            "why": {
                "type": "object",
                "properties": {
                    "tag": {
                        "type": "object",
                        "properties": {"is": {"enum": ["warm", "cold"]}},
                        "additionalProperties": False,
                    }
                },
                "additionalProperties": False,
            },
        },
        "required": ["score", "why"],
        "additionalProperties": False,
        "$defs": {"score": {"type": "integer", "minimum": 1, "maximum": 5}},
    },
}
CLOSE = {
    "name": "close_lead",
    "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = {tool["name"]: tool for tool in (RATE, CLOSE)}
ASKING: dict[str, Any] = {"max_tokens": 600, "tools": [RATE, CLOSE]}


def calls_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls in a line, each with an input that fits its tool."""
    assert line["status"] == "succeeded", line["error"]
    message = line["message"]
    assert message["stop_reason"] == "tool_use", message
    calls: list[dict[str, Any]] = [block for block in message["content"] if block["type"] == "tool_use"]
    for call in calls:
        jsonschema.validate(call["input"], TOOLS[call["name"]]["input_schema"])
    return calls


@pytest.mark.parametrize("model", NAMES)
async def test_a_model_that_must_calls_a_tool_with_an_input_that_fits(
    client: BatchClient, model: str
) -> None:
    single = {"disable_parallel_tool_use": True}
    image = [{"type": "image", "source": {"type": "url", "url": "x"}}]
    one, named, free, untold, blind = await run(
        client,
        [
            request(0, model, **ASKING, tool_choice={"type": "any", **single}),
            request(1, model, **ASKING, tool_choice={"type": "tool", "name": "rate_lead"}),
            request(2, model, **{**ASKING, "max_tokens": 24}),
            request(3, model, **{**ASKING, "max_tokens": 24}, tool_choice={"type": "none"}),
            request(4, model, messages=[{"role": "user", "content": image}]),
        ],
    )
    [_] = calls_of(one)
    [call] = calls_of(named)
    assert call["name"] == "rate_lead"
    assert free["status"] == untold["status"] == "succeeded"
    assert free["usage"]["input_tokens"] > untold["usage"]["input_tokens"]
    assert blind["error"] == {
        "type": "invalid_request_error",
        "message": "messages[0].content[0]: image blocks are not supported; the model reads text only",
    }


@pytest.mark.parametrize("model", NAMES)
async def test_a_call_and_its_result_are_read_and_answered(client: BatchClient, model: str) -> None:
    [line] = await run(
        client, [request(0, model, **ASKING, tool_choice={"type": "tool", "name": "rate_lead"})]
    )
    [call] = calls_of(line)
    messages = [
        {"role": "user", "content": "Write to lead 0."},
        {"role": "assistant", "content": line["message"]["content"]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call["id"], "content": "Done."},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    answered, forced = await run(
        client,
        [
            request(1, model, **{**ASKING, "max_tokens": 24}, messages=messages, system="Be brief."),
            request(
                2, model, **ASKING, messages=messages, tool_choice={"type": "tool", "name": "close_lead"}
            ),
        ],
    )
    assert answered["status"] == "succeeded", answered["error"]
    assert answered["usage"]["input_tokens"] > line["usage"]["input_tokens"]
    [call] = calls_of(forced)
    assert (call["name"], call["input"]) == ("close_lead", {})


@pytest.mark.parametrize("model", NAMES)
async def test_calls_that_are_cut_are_an_error_of_the_model(client: BatchClient, model: str) -> None:
    [cut] = await run(client, [request(0, model, **{**ASKING, "max_tokens": 3}, tool_choice={"type": "any"})])
    assert cut["error"]["type"] == "model_error"
    assert "cut at max_tokens=3" in cut["error"]["message"]


def offer(**choice: Any) -> Offer:
    found = offer_of({"tools": [RATE, CLOSE], **({"tool_choice": choice} if choice else {})})
    assert found is not None
    return found


@pytest.fixture(params=NAMES)
def reader(request: pytest.FixtureRequest) -> tuple[str, ToolReader]:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / TINY[request.param])
    return request.param, ToolReader(tokenizer, PARSER[request.param])


CALLS = {
    "mistral": '[TOOL_CALLS] [{"name": "close_lead", "arguments": {}}, {"name": "rate_lead", "arguments": %s}]',
    "llama-70b": '{"name": "close_lead", "parameters": {}}; {"name": "rate_lead", "parameters": %s}',
}
INPUT = {"score": 3, "why": {"tag": {"is": "warm; {very}"}}}


def test_what_each_model_writes_is_read_as_calls(reader: tuple[str, ToolReader]) -> None:
    model, read = reader
    text = CALLS[model] % json.dumps(INPUT)
    said, calls = read.read(text, offer())
    assert said == ""
    assert [(call.name, call.input) for call in calls] == [("close_lead", {}), ("rate_lead", INPUT)]
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("toolu_") and len(call.id) == 30 for call in calls)
    _, single = read.read(text, offer(type="auto", disable_parallel_tool_use=True))
    assert [call.name for call in single] == ["close_lead"]


def test_what_is_said_before_calls_is_left_to_the_parser(reader: tuple[str, ToolReader]) -> None:
    model, read = reader
    said, calls = read.read("Well. " + CALLS[model] % '{"score": 1}', offer())
    assert [call.name for call in calls] == ["close_lead", "rate_lead"]
    # Llama's parser drops it.
    assert said == ("Well." if model == "mistral" else "")


@pytest.mark.parametrize(
    "text",
    [
        "Hello, {name}.",
        '{"name": "no_such_tool", "parameters": {}}',
        '{"name": "rate_lead", "parameters": {"score"',
        "",
    ],
    ids=["braces", "unknown", "cut", "empty"],
)
def test_any_other_text_is_text(reader: tuple[str, ToolReader], text: str) -> None:
    assert reader[1].read(text, offer()) == (text, ())


def test_a_call_that_cannot_be_read_is_text_and_no_log_repeats_it(
    reader: tuple[str, ToolReader], caplog: pytest.LogCaptureFixture
) -> None:
    for name in (*PARSERS, "vllm"):
        logging.getLogger(name).propagate = True
    text = 'Well. [TOOL_CALLS] [{"name": "secret", "arguments"'
    said, calls = reader[1].read(text, offer())
    assert calls == ()
    assert "[TOOL_CALLS]" not in said
    assert "secret" not in caplog.text


def test_a_parser_that_there_is_not_is_named() -> None:
    with pytest.raises(EngineDead, match="no-such-parser"):
        ToolReader(AutoTokenizer.from_pretrained(MODELS / "llama"), "no-such-parser")


def test_the_tiny_mistral_reads_tools_in_its_own_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "mistral")
    called = {"type": "tool_use", "id": "toolu_1", "name": "close_lead", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Done."}
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [called]},
        {"role": "user", "content": [result]},
    ]
    tokens = ChatTemplate(tokenizer).tokens({"messages": messages}, offer().tools)
    vocabulary = tokenizer.get_vocab()
    for token in ("[AVAILABLE_TOOLS]", "[INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]"):
        assert tokens.count(vocabulary[token]) == 1
