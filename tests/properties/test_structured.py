"""What the simulated engine makes is what the schema asks for; and no answer, whatever it is, brings a check down."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.core.structured import Expectation, schema_fault, schema_format
from shared.engines.simulated_json import broken, instance
from shared.errors import OutputInvalid

WORDS = ("growth", "team", "pipeline")
names = st.sampled_from(["name", "score", "next", "a b", "$ref", "type"])
bounds = st.integers(-20, 20)


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    low, width = draw(bounds), draw(st.integers(2, 30))
    schema: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    for keyword, value in (("minimum", low), ("maximum", low + width)):
        if draw(st.booleans()):
            schema[keyword if draw(st.booleans()) else f"exclusive{keyword.title()}"] = value
    if draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, max(1, width // 2 - 1)))
    return schema


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.integers(0, 30))
    return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 10))}


plain = st.sampled_from([{}, True, {"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}])
constants = st.one_of(st.builds(lambda value: {"const": value}, bounds), st.just({"enum": ["x", None, 3]}))
# The shapes that end by themselves; `tree` refers to itself.
references = st.sampled_from(
    [{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/list"}, {"$ref": "#/$defs/odd~1name"}]
)
DEFINITIONS = {
    "tree": {
        "type": "object",
        "properties": {"left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"}},
    },
    "list": {
        "anyOf": [{"required": ["next"], "properties": {"next": {"$ref": "#/$defs/list"}}}, {"type": "null"}]
    },
    "odd/name": {"type": "integer", "minimum": 7},
}


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(names, inner, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if draw(st.booleans()):
        del schema["additionalProperties"]
        schema["required"] = [*required, "unnamed"]
    return schema


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    least = draw(st.integers(0, 3))
    return {
        "type": "array",
        "items": draw(inner),
        "prefixItems": draw(st.lists(inner, min_size=1, max_size=2)),
        "minItems": least,
        "maxItems": least + draw(st.integers(0, 2)),
    }


def branches(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    either = st.builds(lambda schemas: {"anyOf": schemas}, st.lists(inner, min_size=1, max_size=3))
    whole = st.builds(lambda schema: {"allOf": [schema, True]}, inner)
    return st.one_of(objects(inner), arrays(inner), either, whole)


schemas = st.recursive(
    st.one_of(numbers(), texts(), plain, constants, references), branches, max_leaves=12
).map(lambda schema: {"allOf": [schema], "$defs": DEFINITIONS})


def expected(schema: Any) -> Expectation:
    wanted = Expectation.of({"response_format": schema_format(schema)})
    assert wanted is not None
    return wanted


@given(schemas)
def test_what_is_made_for_a_schema_meets_it(schema: Any) -> None:
    assert schema_fault(schema) is None
    made = instance(schema, WORDS)
    expected(schema).check(json.dumps(made))
    assert instance(schema, WORDS) == made


@given(schemas, st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_a_check_ends_in_a_verdict_whatever_the_answer(schema: Any, value: Any) -> None:
    with suppress(OutputInvalid):
        expected(schema).check(json.dumps(value))


@given(st.dictionaries(st.sampled_from(["a", "b"]), numbers(), min_size=1))
def test_what_is_broken_on_purpose_is_invalid(properties: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": properties}
    text = json.dumps(broken(instance(schema, WORDS)))
    try:
        expected(schema).check(text)
    except OutputInvalid:
        return
    raise AssertionError(text)
