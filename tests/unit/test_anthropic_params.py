"""Requests in Anthropic's words: what becomes of each parameter, and the fault of one request alone."""

from collections.abc import Mapping
from typing import Any

import pytest

from handlers.catalog import CARDS
from shared.anthropic.params import IGNORED, BatchRequest, accept, accept_all
from shared.core.requests import CreateInput, parse
from shared.core.routing import DEFAULT_STAGES, Router
from shared.errors import CallerError, InvalidRequest, NotFound

ROUTER = Router(CARDS, DEFAULT_STAGES)
PARAMS: Mapping[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


def accepted(stage: str | None = None, **changes: Any) -> Mapping[str, Any]:
    return accept(ROUTER, stage, "a", {**PARAMS, **changes}).request


def fault(stage: str | None = None, **changes: Any) -> CallerError:
    with pytest.raises(CallerError) as caught:
        accepted(stage, **changes)
    return caught.value


def test_a_plain_request_gets_anthropics_default_temperature() -> None:
    assert accepted() == {"custom_id": "a", "params": {"temperature": 1.0, **PARAMS}}
    assert accepted(temperature=0)["params"]["temperature"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"system": "Be brief."},
        {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"stop_sequences": ["END"], "top_p": 0.5, "top_k": 40},
        {"tools": [{"name": "look_up", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"thinking": {"type": "disabled"}},
        {"seed": 7, "on_invalid": "retry"},
    ],
    ids="-".join,
)
def test_what_our_own_dialect_has_goes_along_as_it_is(fields: dict[str, Any]) -> None:
    assert accepted(**fields)["params"] == {"temperature": 1.0, **PARAMS, **fields}


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_what_changes_nothing_is_taken_and_left_out(name: str) -> None:
    assert accepted(**{name: "anything"}) == accepted()


@pytest.mark.parametrize(
    "name", ["container", "context_management", "mcp_servers", "system", "top_k", "stream"]
)
def test_null_asks_for_nothing(name: str) -> None:
    assert accepted(**{name: None}) == accepted()


def test_what_is_empty_asks_for_nothing() -> None:
    assert accepted(mcp_servers=[], context_management={}) == accepted()


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
    ],
    ids="-".join,
)
def test_a_json_output_format_becomes_a_response_format(fields: dict[str, Any]) -> None:
    assert accepted(**fields)["params"]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"schema": SCHEMA},
    }


def test_an_effort_alone_changes_nothing() -> None:
    assert accepted(output_config={"effort": "max"}) == accepted()


def test_metadata_is_kept_and_routes() -> None:
    metadata = {"user_id": "u1", "stage": "polish"}
    made = accept(ROUTER, "email", "a", {**PARAMS, "metadata": metadata})
    assert made.request["metadata"] == metadata
    assert "metadata" not in made.request["params"]
    assert made.card.name == "llama-70b"


@pytest.mark.parametrize(
    ("stage", "metadata", "model"),
    [
        (None, {}, "mistral"),
        ("polish", {}, "llama-70b"),
        ("polish", {"stage": "email"}, "mistral"),
        ("email", {"stage": "email", "model_hint": "llama"}, "llama-70b"),
    ],
)
def test_hint_then_own_stage_then_the_batchs_then_the_model(
    stage: str | None, metadata: dict[str, str], model: str
) -> None:
    assert accept(ROUTER, stage, "a", {**PARAMS, "metadata": metadata}).card.name == model


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": None}, "max_tokens: required field is missing"),
        ({"model": None}, "model: required field is missing"),
        ({"messages": None}, "messages: required field is missing"),
        ({"messages": []}, "messages: must have at least 1 entry"),
        ({"max_tokens": "10"}, "max_tokens: must be a whole number"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"max_tokens": 8193}, "max_tokens: at most 8192 for mistral"),
        ({"temperature": "hot"}, "temperature: must be a number"),
        (
            {"messages": [{"role": "system", "content": "x"}]},
            "messages[0].role: must be 'user' or 'assistant'",
        ),
        ({"stream": True}, "stream: streaming is not supported; leave it out"),
        ({"max_token": 10}, "max_token: unknown field"),
        ({"container": "c1"}, "container: not supported; the model reads and writes text only"),
        ({"mcp_servers": [{}]}, "mcp_servers: not supported; the model reads and writes text only"),
        ({"metadata": {"stage": 3}}, "metadata.stage: must be text"),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema: required field",
        ),
        ({"output_format": {"type": "xml", "schema": {}}}, "output_format.type: "),
        ({"messages": [{"role": "user", "content": "x" * 2**20}]}, "messages"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_fault_names_the_field_as_its_caller_does(fields: dict[str, Any], message: str) -> None:
    assert fault(**fields).message.startswith(message)


def test_an_unknown_model_is_not_found() -> None:
    found = fault(model="gpt-4")
    assert isinstance(found, NotFound)
    assert found.message == "model: unknown model 'gpt-4'; known: mistral, llama-70b"


def test_one_requests_fault_is_its_own_refusal_and_goes_where_the_others_go() -> None:
    requests = [
        BatchRequest(custom_id="bad", params={**PARAMS, "max_tokens": None}),
        BatchRequest(custom_id="unknown", params={**PARAMS, "model": "gpt-4"}),
        BatchRequest(custom_id="good", params={**PARAMS, "model": "claude-opus-4-1"}),
    ]
    bad, unknown, good = accept_all(ROUTER, None, requests)
    assert bad["refusal"] == {
        "type": "invalid_request_error",
        "message": "max_tokens: required field is missing",
    }
    assert unknown["refusal"]["type"] == "not_found_error"
    assert "refusal" not in good
    wanted = parse(CreateInput, {"operation": "create", "requests": [bad, unknown, good]})
    assert {ROUTER.route(None, 0, request).name for request in wanted.requests} == {"llama-70b"}


def test_a_refusal_keeps_nothing_of_its_params() -> None:
    [refused] = accept_all(ROUTER, None, [BatchRequest(custom_id="a", params={"messages": "SECRET"})])
    assert "SECRET" not in str(refused)
    wanted = parse(CreateInput, {"operation": "create", "requests": [refused]})
    assert ROUTER.route(None, 0, wanted.requests[0]).name == "mistral"


@pytest.mark.parametrize("custom_id", ["", "a b", "é", "a" * 65, "a\n", "a/b"])
def test_a_name_that_anthropic_refuses_is_refused(custom_id: str) -> None:
    with pytest.raises(InvalidRequest, match="custom_id"):
        parse(BatchRequest, {"custom_id": custom_id, "params": {}})


@pytest.mark.parametrize("model", ["", 5, []], ids=["empty", "number", "list"])
def test_what_is_no_name_of_a_model_is_invalid_and_not_an_unknown_one(model: Any) -> None:
    found = fault(model=model)
    assert isinstance(found, InvalidRequest)
    assert found.param == "model"


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_the_empty_schema_asks_for_json_too(name: str) -> None:
    wanted = {"type": "json_schema", "schema": {}}
    fields: dict[str, Any] = {name: {"format": wanted} if name == "output_config" else wanted}
    made = accepted(**fields)
    assert made["params"]["response_format"] == {"type": "json_schema", "json_schema": {"schema": {}}}
