"""A request's parameters as the fields of vLLM's SamplingParams. Their types and ranges were checked at the create."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shared.core.schemas import NAMED_SCHEMAS
from shared.core.structured import schema_format
from shared.core.tools import Offer

SAME_NAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
)
# Keywords that can't guide a decoding (`not`, `if`, `oneOf`, ...) are left to the check of the answer.
GUIDANCE = {"coerce_one_of": True, "lenient": True}
# Whether several patterns can be met at once is found out on vLLM's event loop, in a time that doubles with each of
# them: 16 take 0.04 s, 24 take 47 s, and meanwhile nothing in the process beats. More are left to the check as well.
GUIDED_PATTERNS_MAX = 16
_VALUES = ("enum", "const", "default", "examples")


def sampling_fields(params: Mapping[str, Any], room: int, offer: Offer | None = None) -> dict[str, Any]:
    """`room` is how many tokens the context has left; `offer` the tools that the answer may call. `structured_outputs`
    holds the fields of vLLM's class of that name."""
    fields = {name: params[name] for name in SAME_NAME if params.get(name) is not None}
    fields["max_tokens"] = min(params["max_tokens"], room)
    if "min_tokens" in fields:
        fields["min_tokens"] = min(fields["min_tokens"], fields["max_tokens"])
    if stop := [*(params.get("stop_sequences") or []), *_stops(params.get("stop"))]:
        fields["stop"] = stop
    if guide := _guide(_format(params, offer)):
        fields["structured_outputs"] = guide
    return fields


def _stops(stop: str | list[str] | None) -> list[str]:
    """Requests are stored as they were sent, and OpenAI's `stop` may be one text."""
    return [stop] if isinstance(stop, str) else stop or []


def _format(params: Mapping[str, Any], offer: Offer | None) -> Mapping[str, Any]:
    """What the decoding is guided by: nothing where the model may choose between text and calls, or it could never call
    a tool."""
    if offer is None:
        return params.get("response_format") or {}
    return schema_format(offer.calls_schema()) if offer.forced else {}


def _guide(response_format: Mapping[str, Any]) -> dict[str, Any]:
    kind = response_format.get("type")
    if kind == "json_object":
        return {"json_object": True}
    if kind == "json_schema":
        schema = response_format["json_schema"]["schema"]
        if len(set(patterns_in(schema))) > GUIDED_PATTERNS_MAX:
            schema = _without_patterns(schema)
        return {"json": {**schema, "x-guidance": GUIDANCE}}
    return {}


def patterns_in(schema: Any) -> Iterator[str]:
    """Every `pattern` of a schema, or of all schemas in a call's body."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name == "pattern" and isinstance(value, str):
                yield value
            elif name in NAMED_SCHEMAS and isinstance(value, dict):
                for child in value.values():
                    yield from patterns_in(child)
            elif name not in _VALUES:
                yield from patterns_in(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from patterns_in(value)


def _without_patterns(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            name: _kept(name, value)
            for name, value in schema.items()
            if not (name == "pattern" and isinstance(value, str))
        }
    return [_without_patterns(value) for value in schema] if isinstance(schema, list) else schema


def _kept(name: str, value: Any) -> Any:
    """What stays of a keyword's value without patterns."""
    if name in NAMED_SCHEMAS and isinstance(value, dict):
        return {key: _without_patterns(child) for key, child in value.items()}
    return value if name in _VALUES else _without_patterns(value)
