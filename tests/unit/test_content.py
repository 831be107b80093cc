"""The shapes of content, tools and refusals that a create takes, and how a fault in one is named."""

from typing import Any

import pytest

from shared.core.requests import CreateInput, parse
from shared.errors import InvalidRequest

TEXT = {"type": "text", "text": "hi"}
TOOL = {"name": "rate", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "rate", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1"}


def create(params: dict[str, Any], **others: Any) -> dict[str, Any]:
    fields = {"messages": [{"role": "user", "content": "hi"}], **params}
    return {"operation": "create", "requests": [{"custom_id": "a", "params": fields, **others}]}


def content(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


@pytest.mark.parametrize(
    "params",
    [
        content(TEXT),
        content({**TEXT, "cache_control": {"type": "ephemeral"}, "citations": None}),
        content(TEXT, {"type": "image", "source": {"type": "base64", "data": ""}}),
        content({"type": "document", "title": None}),
        content(CALL, {**CALL, "caller": {"type": "direct"}}, role="assistant"),
        content(CALL),
        content(RESULT),
        content({**RESULT, "content": "", "is_error": True}),
        content({**RESULT, "content": [TEXT, {"type": "image"}], "is_error": None}),
        content({**RESULT, "content": []}),
        {"system": [TEXT, {**TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {"system": []},
        {"tools": []},
        {"tools": [{**TOOL, "type": "custom", "strict": True, "cache_control": None, "defer_loading": True}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]},
        {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"tool_choice": {"type": "tool", "name": "no such tool"}},
        {"tools": None, "tool_choice": None, "thinking": {"type": "enabled"}},
    ],
    ids=lambda params: repr(params)[:60],
)
def test_what_has_the_right_shape_is_taken(params: dict[str, Any]) -> None:
    assert parse(CreateInput, create(params)).requests


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (content(), "messages[0].content: must have at least 1 entry"),
        (content("hi"), "messages[0].content[0]: must be an object"),
        (content(TEXT, None), "messages[0].content[1]: must be an object"),
        (content({"text": "hi"}), "messages[0].content[0].type: required field is missing"),
        (content({"type": 3}), "messages[0].content[0].type: must be text"),
        (content({"type": ""}), "messages[0].content[0].type: must have at least 1 character"),
        (content({"type": "text"}), "messages[0].content[0].text: required field is missing"),
        (content({**TEXT, "text": ""}), "messages[0].content[0].text: must have at least 1 character"),
        (content({**TEXT, "texts": "hi"}), "messages[0].content[0].texts: unknown field"),
        (content({**CALL, "input": "{}"}), "messages[0].content[0].input: must be an object"),
        (content({**CALL, "id": ""}), "messages[0].content[0].id: must have at least 1 character"),
        (
            content({**RESULT, "tool_use_id": None}),
            "messages[0].content[0].tool_use_id: must be text",
        ),
        (
            content({**RESULT, "content": [{"type": "text"}]}),
            "messages[0].content[0].content[0].text: required field is missing",
        ),
        (content({**RESULT, "content": 3}), "messages[0].content[0].content: must be text"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content: must be text"),
        ({"system": 3}, "system: must be text"),
        ({"system": [{"type": "image"}]}, "system[0].type: must be 'text'"),
        ({"tools": {}}, "tools: must be a list"),
        ({"tools": ["rate"]}, "tools[0]: must be an object"),
        ({"tools": [{"name": "rate"}]}, "tools[0].input_schema: required field is missing"),
        ({"tools": [{**TOOL, "input_schema": True}]}, "tools[0].input_schema: must be an object"),
        ({"tools": [{**TOOL, "name": ""}]}, "tools[0].name: must have at least 1 character"),
        ({"tools": [TOOL] * 257}, "tools: must have at most 256 entries"),
        ({"tool_choice": "auto"}, "tool_choice: must be an object"),
        ({"tool_choice": {"type": "required"}}, "tool_choice.type: must be 'auto', 'any', 'tool' or 'none'"),
        ({"tool_choice": {"type": "any", "parallel": False}}, "tool_choice.parallel: unknown field"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_of_shape_is_named_by_its_place(params: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(CreateInput, create(params))
    assert caught.value.message.partition(" (")[0] == f"requests[0].params.{told}"
    assert caught.value.param == f"requests[0].params.{told.partition(': ')[0]}"


@pytest.mark.parametrize(
    ("refusal", "param"),
    [
        ("no", "requests[0].refusal"),
        ({"type": "invalid_request_error"}, "requests[0].refusal.message"),
        ({"type": "", "message": "x"}, "requests[0].refusal.type"),
        ({"type": "a", "message": "x" * 4097}, "requests[0].refusal.message"),
    ],
    ids=["text", "missing", "empty", "long"],
)
def test_a_refusal_that_is_none_is_named(refusal: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(CreateInput, create({}, refusal=refusal))
    assert caught.value.param == param
