"""JSON that a schema accepts, made without a model: small, and always the same for the same schema and words.

Knows the common keywords: type, properties, required, items, prefixItems, enum, const, anyOf, oneOf, allOf, local $ref,
lengths and bounds. It ignores the others (`pattern`, `not`, `uniqueItems`): what it makes may then be invalid, as a
model's answer may be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any] | bool

DEPTH_MAX = 24
OPTIONAL_DEPTH_MAX = 6
PARTS_MAX = 10_000
_NAMES = {"object": {}, "array": [], "boolean": True, "null": None}


class _TooDeep(Exception):
    pass


def asked_for(params: Mapping[str, Any], words: Sequence[str], *, invalid: bool) -> str | None:
    """The JSON text that a request's `response_format` asks for, or one that is not so; None where it asks for none."""
    wanted = params.get("response_format") or {"type": "text"}
    match wanted["type"]:
        case "json_schema":
            made = instance(wanted["json_schema"]["schema"], words)
            return json.dumps(broken(made) if invalid else made)
        case "json_object":
            return json.dumps([words[0]] if invalid else {"text": words[0]})
        case _:
            return None


def instance(schema: Schema, words: Sequence[str]) -> Any:
    """What the schema accepts: near its root with what is optional, deeper without; the first alternative that ends.
    Strings are made of `words`. None where nothing ends."""
    try:
        return _Maker(schema, words).make(schema, 0)
    except _TooDeep:
        return None


def broken(value: Any) -> Any:
    """The value with its first leaf replaced by what hardly any schema wants there."""
    if isinstance(value, dict) and value:
        first = next(iter(value))
        return {**value, first: broken(value[first])}
    if isinstance(value, list) and value:
        return [broken(value[0]), *value[1:]]
    return {"invalid": True} if value != {} else []


class _Maker:
    def __init__(self, root: Schema, words: Sequence[str]) -> None:
        self._root = root
        self._words: Iterator[str] = cycle(words)
        self._parts = 0

    def make(self, schema: Schema, depth: int) -> Any:
        self._parts += 1
        if depth > DEPTH_MAX or self._parts > PARTS_MAX:
            raise _TooDeep
        if isinstance(schema, bool):
            return next(self._words)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for keyword in ("$ref", "anyOf", "oneOf", "allOf"):
            if schema.get(keyword):
                return self._composed(schema, keyword, depth)
        return self._typed(schema, depth)

    def _composed(self, schema: Mapping[str, Any], keyword: str, depth: int) -> Any:
        beside = {name: value for name, value in schema.items() if name != keyword}
        if keyword == "$ref":
            return self.make(_merged([beside, self._target(schema["$ref"])]), depth + 1)
        if keyword == "allOf":
            return self.make(_merged([beside, *schema["allOf"]]), depth + 1)
        return self._first_that_ends([_merged([beside, each]) for each in schema[keyword]], depth)

    def _first_that_ends(self, alternatives: Sequence[Schema], depth: int) -> Any:
        # Those that refer to nothing first: a list ends with its null, not after 24 members.
        for schema in sorted(alternatives, key=_refers):
            try:
                return self.make(schema, depth + 1)
            except _TooDeep:
                continue
        raise _TooDeep

    def _target(self, reference: str) -> Schema:
        node: Any = self._root
        for part in unquote(reference).lstrip("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            node = node[int(name)] if isinstance(node, list) else node[name]
        found: Schema = node
        return found

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer":
                return int(_number(schema, whole=True))
            case "number":
                return _number(schema, whole=False)
            case other:
                return _NAMES[other]

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        others = schema.get("additionalProperties", True)
        optional = properties if depth < OPTIONAL_DEPTH_MAX else ()
        names = [*optional, *(name for name in required if name not in optional)]
        made = {name: self.make(properties.get(name, others), depth + 1) for name in names}
        for number in range(len(made), schema.get("minProperties", 0)):
            made[f"{next(self._words)}_{number}"] = self.make(others, depth + 1)
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        places = schema.get("prefixItems", [])
        optional = 1 if depth < OPTIONAL_DEPTH_MAX else 0
        count = min(max(schema.get("minItems", 0), optional), schema.get("maxItems", math.inf))
        others = [schema.get("items", True)] * max(0, count - len(places))
        return [self.make(member, depth + 1) for member in [*places, *others][:count]]

    def _string(self, schema: Mapping[str, Any]) -> str:
        text = next(self._words)
        while len(text) < schema.get("minLength", 0):
            text = f"{text} {next(self._words)}"
        return text[: schema.get("maxLength")]


def _type_of(schema: Mapping[str, Any]) -> str:
    named = schema.get("type")
    if isinstance(named, list):
        named = named[0] if named else None
    if named:
        return str(named)
    for keyword, kind in (("properties", "object"), ("required", "object"), ("items", "array")):
        if keyword in schema:
            return kind
    return "number" if {"minimum", "maximum", "multipleOf"} & schema.keys() else "string"


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    """0 where the bounds allow it, else a number at one of them or between."""
    low, above = schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf)
    high, below = schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf)
    ends = [end for end in (max(low, above), min(high, below)) if math.isfinite(end)]
    near: list[float] = [0, *ends, *(end + 1 for end in ends), *(end - 1 for end in ends)]
    near.append(sum(ends) / 2)
    if step := schema.get("multipleOf", 1 if whole else 0):
        near = [(number // step + more) * step for number in near for more in (0, 1)]
    fitting = (number for number in near if low <= number <= high and above < number < below)
    return next(fitting, 0)


def _merged(schemas: Sequence[Schema]) -> Schema:
    """One schema for several that all must hold, as far as their properties and bounds don't contradict."""
    merged: dict[str, Any] = {}
    for schema in schemas:
        if isinstance(schema, bool):
            continue
        for name, value in schema.items():
            if name == "properties":
                merged[name] = {**merged.get(name, {}), **value}
            elif name == "required":
                merged[name] = [*merged.get(name, []), *value]
            else:
                merged[name] = value
    return merged


def _refers(schema: Schema) -> bool:
    return not isinstance(schema, bool) and "$ref" in schema
