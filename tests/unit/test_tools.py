"""Tools on offer: which may be called, what a call looks like, and what is wrong with an offer."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.tools import CALLS_MAX, Offer, ToolCall, calls_in, offer_of
from shared.engines.simulated_json import instance
from shared.errors import OutputInvalid, RequestRejected

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/name"}, "near": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string", "minLength": 2}},
}
WEATHER = {"name": "get_weather", "description": "In a city.", "input_schema": CITY}
STOCK = {
    "name": "get_stock",
    "input_schema": {
        "type": "object",
        "properties": {"sku": {"$ref": "#/$defs/name"}, "$ref": {"const": {"$ref": "#"}}},
        "required": ["sku"],
        "$defs": {"name": {"enum": ["a-1"]}},
    },
}


def offer(*tools: dict[str, Any], **choice: Any) -> Offer:
    found = offer_of({"tools": list(tools), **({"tool_choice": choice} if choice else {})})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("choice", "callable_names", "forced", "most"),
    [
        ({}, ["get_weather", "get_stock"], False, CALLS_MAX),
        ({"type": "auto", "disable_parallel_tool_use": True}, ["get_weather", "get_stock"], False, 1),
        ({"type": "any"}, ["get_weather", "get_stock"], True, CALLS_MAX),
        ({"type": "any", "disable_parallel_tool_use": True}, ["get_weather", "get_stock"], True, 1),
        ({"type": "tool", "name": "get_stock"}, ["get_stock"], True, 1),
    ],
    ids=["none-named", "auto-single", "any", "any-single", "tool"],
)
def test_the_choice_says_what_may_be_called(
    choice: dict[str, Any], callable_names: list[str], forced: bool, most: int
) -> None:
    found = offer(WEATHER, STOCK, **choice)
    assert [tool.name for tool in found.tools] == ["get_weather", "get_stock"]
    assert [tool.name for tool in found.callable] == callable_names
    assert (found.forced, found.most) == (forced, most)
    assert found.accepts("get_stock")
    assert found.accepts("get_weather") is ("get_weather" in callable_names)


@pytest.mark.parametrize(
    "params",
    [{}, {"tools": None}, {"tools": []}, {"tools": [WEATHER], "tool_choice": {"type": "none"}}],
    ids=["absent", "null", "empty", "none"],
)
def test_there_may_be_nothing_to_call(params: dict[str, Any]) -> None:
    assert offer_of(params) is None


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"tools": [WEATHER, {"type": "bash_20250124", "name": "bash"}]}, "tools[1]"),
        ({"tools": [{**WEATHER, "name": "get weather"}]}, "tools[0].name"),
        ({"tools": [{**WEATHER, "name": "x" * 129}]}, "tools[0].name"),
        ({"tools": [WEATHER, STOCK, WEATHER]}, "tools[2].name"),
        (
            {"tools": [{**WEATHER, "input_schema": {"properties": {"a": {"type": "no-such-type"}}}}]},
            "tools[0].input_schema",
        ),
        ({"tools": [{**WEATHER, "input_schema": {"type": "string"}}]}, "tools[0].input_schema.type"),
        ({"tools": [{**WEATHER, "input_schema": {"$ref": "#/$defs/no"}}]}, "tools[0].input_schema"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        (
            {"tools": [{"type": "bash_20250124", "name": "bash"}], "tool_choice": {"type": "none"}},
            "tools[0]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_offer_that_cannot_be_served_is_refused_by_its_field(params: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        offer_of(params)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")


class TestCallsSchema:
    @pytest.mark.parametrize(
        ("calls", "fits"),
        [
            ([{"name": "get_weather", "arguments": {"city": "Rome", "near": [{"city": "Bari"}]}}], True),
            ([{"name": "get_stock", "arguments": {"sku": "a-1", "$ref": {"$ref": "#"}}}], True),
            ([{"name": "get_stock", "arguments": {"sku": "a-1"}}] * 2, True),
            ([{"name": "get_weather", "arguments": {"city": "R"}}], False),
            ([{"name": "get_weather", "arguments": {"city": "Rome", "near": [{}]}}], False),
            ([{"name": "get_stock", "arguments": {"sku": "Rome"}}], False),
            ([{"name": "get_time", "arguments": {}}], False),
            ([{"name": "get_stock"}], False),
            ([], False),
        ],
        ids=[
            *("nested", "other", "two"),
            *("short", "nested-short", "other-enum", "unknown", "without-arguments", "none"),
        ],
    )
    def test_it_accepts_calls_whose_inputs_fit_and_no_others(self, calls: list[Any], fits: bool) -> None:
        schema = offer(WEATHER, STOCK, type="any").calls_schema()
        assert jsonschema.Draft202012Validator(schema).is_valid(calls) is fits

    def test_a_property_may_have_a_keywords_name(self) -> None:
        properties = {name: {"$ref": "#/$defs/word"} for name in ("default", "enum", "$id", "$schema")}
        defined = {"word": {"type": "string"}, "examples": {"$ref": "#/$defs/word"}}
        tool = {"name": "set", "input_schema": {"type": "object", "$defs": defined, "properties": properties}}
        validator = jsonschema.Draft202012Validator(offer(tool, type="any").calls_schema())
        for name in properties:
            assert validator.is_valid([{"name": "set", "arguments": {name: "x"}}])
            assert not validator.is_valid([{"name": "set", "arguments": {name: 1}}])

    def test_one_call_is_all_that_a_single_choice_accepts(self) -> None:
        schema = offer(WEATHER, STOCK, type="tool", name="get_stock").calls_schema()
        call = {"name": "get_stock", "arguments": {"sku": "a-1"}}
        validator = jsonschema.Draft202012Validator(schema)
        assert validator.is_valid([call])
        assert not validator.is_valid([call, call])
        assert not validator.is_valid([{"name": "get_weather", "arguments": {"city": "Rome"}}])

    def test_what_is_made_by_it_is_read_back_as_calls(self) -> None:
        made = instance(offer(WEATHER, STOCK, type="any").calls_schema(), ["word"])
        [(name, value)] = calls_in(json.dumps(made))
        assert name == "get_weather"
        jsonschema.validate(value, CITY)

    def test_an_input_is_an_object_though_its_schema_does_not_say_so(self) -> None:
        schema = offer({"name": "look", "input_schema": {}}, type="any").calls_schema()
        validator = jsonschema.Draft202012Validator(schema)
        assert validator.is_valid([{"name": "look", "arguments": {}}])
        assert not validator.is_valid([{"name": "look", "arguments": "here"}])


class TestReading:
    @pytest.mark.parametrize(
        "text",
        [
            '[{"name": "a", "arguments": {"x": {"y": {"z": "q; {w}"}}}}, {"name": "b", "arguments": {}}]',
            '{"name": "a", "parameters": {"x": {"y": {"z": "q; {w}"}}}}; {"name": "b", "parameters": {}}',
            ' {"name": "a", "parameters": {"x": {"y": {"z": "q; {w}"}}}}\n{"name": "b", "arguments": {}} ',
        ],
        ids=["list", "semicolons", "lines"],
    )
    def test_a_text_that_is_nothing_but_calls_is_read(self, text: str) -> None:
        assert calls_in(text) == [("a", {"x": {"y": {"z": "q; {w}"}}}), ("b", {})]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            'hello {"name": "a", "arguments": {}}',
            '[{"name": "a", "argum',
            '[{"name": "a", "arguments": {}}, {"name": "b"}]',
            '{"name": "a", "arguments": "x"}',
            '{"name": 3, "arguments": {}}',
            '{"name": "a", "arguments": {"x": NaN}}',
            '{"name": "a", "arguments": {"x": [1e999]}}',
            '{"name": "a", "arguments": {"x": "\\ud800"}}',
            '{"name": "a", "arguments": ' + '{"x":' * 200 + "1" + "}" * 201,
            '["a"]',
            "3",
            "[" * 100_000,
        ],
        ids=lambda text: repr(text)[:24],
    )
    def test_any_other_text_holds_none(self, text: str) -> None:
        assert calls_in(text) == []

    @given(st.text())
    def test_no_text_is_too_odd(self, text: str) -> None:
        assert isinstance(calls_in(text), list)


class TestCheck:
    def test_a_call_that_had_to_be_made_and_was_not_is_said(self) -> None:
        with pytest.raises(OutputInvalid, match=r"no tool was called$"):
            offer(WEATHER, type="any").check([])
        with pytest.raises(OutputInvalid, match="cut at max_tokens=7"):
            offer(WEATHER, type="any").check([], 7)

    def test_no_call_need_be_made_by_choice(self) -> None:
        offer(WEATHER).check([])

    def test_only_the_input_of_a_strict_tool_is_checked_and_nothing_of_it_repeated(self) -> None:
        call = ToolCall("toolu_1", "get_weather", {"city": "Rome", "near": [{"city": "S"}]})
        offer(WEATHER).check([call])
        with pytest.raises(OutputInvalid) as caught:
            offer({**WEATHER, "strict": True}).check([call])
        assert caught.value.message == (
            "Output validation failed in the input of get_weather at $.near[0].city: must meet its minLength"
        )
