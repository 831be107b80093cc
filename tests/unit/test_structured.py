"""Structured output: which answers are what was asked for, which schemas can be used, and that neither can run away."""

import json
import socket
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest

from shared.core import schemas
from shared.core.structured import Expectation, reseeded, schema_fault, schema_format, tries
from shared.errors import OutputInvalid, RequestRejected

LEAD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def expected(schema: Any) -> Expectation:
    wanted = Expectation.of({"response_format": schema_format(schema)})
    assert wanted is not None
    return wanted


def fault(schema: Any, value: Any) -> str:
    return fault_of_text(schema, json.dumps(value))


def fault_of_text(schema: Any, text: str, cut_at: int | None = None) -> str:
    with pytest.raises(OutputInvalid) as caught:
        expected(schema).check(text, cut_at)
    assert caught.value.message.startswith("Output validation failed at $")
    return caught.value.message


@pytest.mark.parametrize("params", [{}, {"response_format": None}, {"response_format": {"type": "text"}}])
def test_where_no_format_is_asked_for_any_text_will_do(params: dict[str, Any]) -> None:
    assert Expectation.of(params) is None


@pytest.mark.parametrize("text", ["{}", ' {"a": [1, null]}\n'])
def test_any_object_is_a_json_object(text: str) -> None:
    wanted = Expectation.of({"response_format": {"type": "json_object"}})
    assert wanted is not None
    wanted.check(text)


@pytest.mark.parametrize(
    "text", ["[]", "1", '"{}"', "", "hello", '{"a": 1', '{"a": NaN}', "{} {}", "```{}```"]
)
def test_anything_else_is_none(text: str) -> None:
    wanted = Expectation.of({"response_format": {"type": "json_object"}})
    assert wanted is not None
    with pytest.raises(OutputInvalid, match=r"^Output validation failed at \$: ") as caught:
        wanted.check(text)
    assert (caught.value.type, caught.value.retryable) == ("model_error", False)


def test_an_answer_that_meets_its_schema_passes() -> None:
    expected(LEAD).check(json.dumps({"name": "Ada", "items": [{"name": "x"}]}))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"name": "Ada", "items": [{"name": 7}]}, '$.items[0].name: must meet {"type": "string"}'),
        ({"name": "Ada", "items": [{"name": "x"}, {}]}, "$.items[1]: 'name' is a required property"),
        ({"name": ""}, '$.name: must meet {"minLength": 1}'),
        ({"name": "Ada", "odd one": 1}, "$['odd one']: must meet {\"additionalProperties\": false}"),
        ([], '$: must meet {"type": "object"}'),
    ],
    ids=str,
)
def test_the_path_that_fails_and_the_demand_are_named(value: Any, told: str) -> None:
    assert fault(LEAD, value) == f"Output validation failed at {told}"


def test_the_failing_branch_of_alternatives_is_named() -> None:
    either = {"anyOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"type": "null"}]}
    assert "$.a" in fault(either, {"a": "x"})


def test_an_answer_cut_at_max_tokens_is_told_as_such() -> None:
    assert "cut at max_tokens=16" in fault_of_text(LEAD, '{"name": "Ad', cut_at=16)
    assert "cut" not in fault_of_text(LEAD, '{"name": 3}', cut_at=16)
    expected(LEAD).check('{"name": "Ada"}', cut_at=16)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"enum": ["a"]}, "SECRET" * 1000),
        ({"type": "object"}, ["SECRET"] * 1000),
        ({"pattern": "^a$"}, "SECRET"),
        ({"const": 1}, {"a": "SECRET"}),
        (False, "SECRET"),
        ({"properties": {"a": False}}, {"a": "SECRET"}),
        ({"oneOf": [True, True]}, "SECRET"),
        ({"uniqueItems": True}, ["SECRET", "SECRET"]),
    ],
    ids=str,
)
def test_an_error_repeats_nothing_of_the_answers_text(schema: Any, value: Any) -> None:
    message = fault({"allOf": [schema]}, value)
    assert "SECRET" not in message
    assert "SECRET" not in fault_of_text({"allOf": [schema]}, "SECRET not JSON")
    assert len(message) < 500


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "objekt"}, "$.type: 'objekt'"),
        ({"properties": {"age": {"type": "int"}}}, "$.properties.age.type: 'int'"),
        ({"required": "name"}, "$.required"),
        ({"properties": {"a": {"pattern": "("}}}, "$.properties.a.pattern"),
        ({"properties": {"a": 3}}, "$.properties.a"),
        ({"$schema": "https://example.invalid/mine"}, "$['$schema']: must be one of"),
        ({"$schema": 3}, "$['$schema']"),
        ({"properties": {"a": {"$schema": DRAFT_7}}}, "$.properties.a['$schema']"),
        ({"items": {"$ref": "#/$defs/none"}}, "$.items.$ref: '#/$defs/none'"),
        ({"$ref": "#/minimum/x", "minimum": 1}, "$.$ref: '#/minimum/x'"),
        ({"$id": "http://[", "$ref": "#"}, "$: Invalid IPv6 URL"),
        ({"$schema": DRAFT_4, "properties": {"a": {"$ref": 5}}}, "$.properties.a.$ref: must be text"),
        ({"multipleOf": float("inf")}, "$: Out of range float values"),
        ({"$ref": "#/properties"}, "$.properties"),
        ({"$ref": "#/other", "other": {"type": "nope"}}, "$.other.type"),
        ({"$ref": "#/required", "required": ["a"]}, "$: a reference"),
        ({"$ref": "#"}, "'#' leads back to itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "leads back to itself"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "not supported"),
        ({"description": "x" * schemas.SCHEMA_MAX_CHARS}, "$: at most 100000 characters"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_schema_that_cannot_be_used_is_rejected_with_its_place(schema: Any, place: str) -> None:
    if schema == {"$ref": "#/properties"}:
        schema = {**schema, "properties": {"type": "objekt"}}
    with pytest.raises(RequestRejected) as caught:
        expected(schema)
    assert caught.value.message.startswith("params.response_format.json_schema.schema at $")
    assert place in caught.value.message
    assert len(caught.value.message) < 700
    assert schema_fault(schema) == caught.value.message.partition(" ")[2]


def nested(depth: int, schema: Any) -> Any:
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def test_a_schema_that_nests_too_deep_is_rejected() -> None:
    with pytest.raises(RequestRejected, match="nested too deep"):
        expected(nested(400, {}))


@pytest.mark.parametrize(
    "reference",
    ["http://127.0.0.1:9/schema.json", "https://json-schema.org/draft/2020-12/schema", "file:///x", "x"],
)
def test_no_reference_is_ever_fetched(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr("urllib.request.urlopen", connect)
    with pytest.raises(RequestRejected, match="nothing is fetched"):
        expected({"properties": {"a": {"$ref": reference}}})


@pytest.mark.parametrize("name", [DRAFT_7, "http://json-schema.org/draft-04/schema", None])
def test_definitions_of_older_drafts_are_followed(name: str | None) -> None:
    draft = {"$schema": name} if name else {}
    number, property_ = {"n": {"type": "integer"}}, {"a": {"$ref": "#/definitions/n"}}
    schema = {**draft, "definitions": number, "properties": property_}
    expected(schema).check('{"a": 1}')
    assert "$.a" in fault(schema, {"a": "x"})


def test_each_draft_reads_its_own_words() -> None:
    above = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}
    fault(above, 3)
    pair = [{"type": "integer"}, {"type": "string"}]
    fault({"$schema": DRAFT_7, "items": pair}, ["x"])
    fault({"prefixItems": pair}, ["x"])
    fault({"$dynamicRef": "#n", "$defs": {"n": {"$dynamicAnchor": "n", "type": "null"}}}, 1)


def test_references_and_ids_within_the_schema_are_followed() -> None:
    schema = {
        "$id": "https://a.invalid/x",
        "items": {"$ref": "y"},
        "$defs": {"y": {"$id": "y", "type": "integer"}},
    }
    expected(schema).check("[1]")
    assert "$[0]" in fault(schema, ["x"])


def test_what_only_looks_like_a_reference_is_none() -> None:
    schema = {"properties": {"$ref": {"const": {"$ref": "#/nowhere"}}}, "default": {"$ref": "x"}}
    expected(schema).check('{"$ref": {"$ref": "#/nowhere"}}')


def test_formats_are_notes() -> None:
    expected({"format": "email"}).check('"x"')


def test_patterns_of_javascript_are_known() -> None:
    expected({"pattern": r"^\p{Lu}\d{2}$"}).check('"É12"')
    expected({"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False}).check(
        '{"x-a": 1}'
    )
    schema = {"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    assert "$['x-a']" in fault(schema, {"x-a": "1"})
    assert "$.y" in fault(schema, {"y": 1})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a|aa)+$"}, "a" * 60 + "!"),
        ({"patternProperties": {"^(a|aa)+$": {}}}, {"a" * 60 + "!": 1}),
        ({"patternProperties": {"^(a|aa)+$": {}}, "additionalProperties": False}, {"a" * 60 + "!": 1}),
    ],
    ids=str,
)
def test_a_pattern_that_takes_exponential_time_is_given_up(schema: Any, value: Any) -> None:
    began_s = monotonic()
    assert "took longer than 0.1 s" in fault(schema, value)
    assert monotonic() - began_s < 5


def test_alternatives_that_double_with_each_level_are_given_up() -> None:
    twice = {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}, "additionalProperties": False}
    value: Any = {"b": 1}
    for _ in range(40):
        value = {"a": value}
    began_s = monotonic()
    assert "references were followed" in fault(twice, value)
    assert monotonic() - began_s < 10


@pytest.mark.parametrize(
    "value",
    ["[" * 100_000, json.dumps(nested(300, 1)), "9" * 5000, '{"a": 1e999}'],
    ids=lambda text: text[:10],
)
def test_strange_numbers_and_depths_are_answered(value: str) -> None:
    fault(
        {"$defs": {}, "properties": {"properties": {"$ref": "#"}, "a": {"$ref": "#"}}, "type": "null"}, value
    )


def test_a_loop_that_no_reference_shows_is_answered() -> None:
    assert "can't be compared" in fault({"allOf": [{"$ref": "#"}]}, 1)


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1e400", "123456789012345678901234567890"])
@pytest.mark.parametrize("step", [0.1, 1e-300, 7])
def test_no_number_brings_the_check_down(value: str, step: float) -> None:
    with suppress(OutputInvalid):
        expected({"multipleOf": step}).check(value)


def test_a_schema_is_compiled_once() -> None:
    first, again = expected({"title": "once", "type": "null"}), expected({"type": "null", "title": "once"})
    assert first.validator is again.validator


def test_the_caller_decides_how_often_is_tried() -> None:
    assert (tries({}), tries({"on_invalid": "error"}), tries({"on_invalid": "retry"})) == (1, 1, 3)


def test_each_try_has_a_seed_of_its_own() -> None:
    own = {"seed": 5, "messages": []}
    assert [reseeded(own, number, 99)["seed"] for number in range(3)] == [5, 6, 7]
    assert "seed" not in reseeded({}, 0, 99)
    assert reseeded({}, 1, 99) == {"seed": 99}
    assert reseeded({"seed": "x"}, 1, 99) == {"seed": 99}
    assert reseeded({"seed": 2**63 - 1}, 1, 99) == {"seed": 0}
    assert own == {"seed": 5, "messages": []}
