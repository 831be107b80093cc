"""Tools that a request offers a model: which it may call, whether it must, and what its calls look like as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeGuard

from jsonschema.exceptions import best_match
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from shared.core.bounds import check_bounds
from shared.core.content import Text
from shared.core.schemas import NAMED_SCHEMAS, BadSchema, RanAway, errors_in, validator_of
from shared.errors import CallerError, OutputInvalid, RequestRejected

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
# A model that is made to call tools must come to an end.
CALLS_MAX = 16
_OURS, _OTHERS = "<custom>", "<other tool>"
TAGS = frozenset({_OURS, _OTHERS})
INPUT_MAX_BYTES = 1024 * 1024
# What stands there is data, whatever its names are.
_VALUES = ("enum", "const", "default", "examples")


class CustomTool(BaseModel):
    """A tool that the caller runs. Fields beside these are kept; nothing here depends on them."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    name: Text
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None


class OtherTool(BaseModel):
    """A tool that the provider would run. Its request fails by itself."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    type: Text


def _kind(value: Any) -> str | None:
    if not isinstance(value, (dict, BaseModel)):
        return None
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return _OURS if kind in (None, "custom") else _OTHERS


AnyTool = Annotated[
    Annotated[CustomTool, Tag(_OURS)] | Annotated[OtherTool, Tag(_OTHERS)],
    Discriminator(_kind, custom_error_type="not_an_object", custom_error_message="must be an object"),
]
AnyTools = Annotated[list[AnyTool], Field(max_length=256)]


class ToolChoice(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    type: Literal["auto", "any", "tool", "none"]
    name: Text | None = None
    disable_parallel_tool_use: bool | None = None


@dataclass(frozen=True)
class ToolCall:
    """A model's wish: `id` is what the result will name."""

    id: str
    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class Tool:
    name: str
    description: str
    input_schema: Mapping[str, Any]
    strict: bool


@dataclass(frozen=True)
class Offer:
    """`tools` are all that the model is told of, `callable` those that it may call now. `forced`: it must call one;
    `most`: how many calls an answer may have."""

    tools: tuple[Tool, ...]
    callable: tuple[Tool, ...]
    forced: bool
    most: int

    def accepts(self, name: object) -> bool:
        return any(tool.name == name for tool in self.callable)

    def check(self, calls: Sequence[ToolCall], cut_at: int | None = None) -> None:
        """Raises OutputInvalid where a call had to be made and was not, or where the input of a `strict` tool does not
        fit. `cut_at`: the max_tokens at which the answer was cut."""
        if self.forced and not calls:
            cut = f": the answer was cut at max_tokens={cut_at}, before the end of a call" if cut_at else ""
            raise OutputInvalid(f"Output validation failed: no tool was called{cut}")
        strict = {tool.name: tool for tool in self.callable if tool.strict}
        for call in calls:
            if call.name in strict:
                _check_input(strict[call.name], call.input)

    def calls_schema(self) -> dict[str, Any]:
        """What guides a decoding to one call or more: a list of `{"name", "arguments"}`."""
        definitions = {
            str(number): _moved(tool.input_schema, f"#/$defs/{number}")
            for number, tool in enumerate(self.callable)
        }
        one_of = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.name},
                    "arguments": {"$ref": f"#/$defs/{number}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for number, tool in enumerate(self.callable)
        ]
        return {
            "type": "array",
            "items": one_of[0] if len(one_of) == 1 else {"anyOf": one_of},
            "minItems": 1,
            "maxItems": self.most,
            "$defs": definitions,
        }


def offer_of(params: Mapping[str, Any]) -> Offer | None:
    """None where there is no tool to call. Raises RequestRejected for tools or a choice that can't be served, naming
    the field."""
    tools = [_tool(f"tools[{index}]", raw) for index, raw in enumerate(params.get("tools") or [])]
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            _reject(f"tools[{index}].name", "the same name as another tool")
    choice = params.get("tool_choice") or {"type": "auto"}
    kind, only = choice["type"], choice.get("name")
    if kind == "tool" and only not in names:
        known = f"; tools: {', '.join(names)}" if names else ""
        _reject("tool_choice.name", f"no tool of the name {only!r:.100}{known:.300}")
    if kind == "any" and not tools:
        _reject("tool_choice", "no tool to choose from: tools is empty")
    if kind == "none" or not tools:
        return None
    single = kind == "tool" or choice.get("disable_parallel_tool_use") is True
    return Offer(
        tools=tuple(tools),
        callable=tuple(tool for tool in tools if kind != "tool" or tool.name == only),
        forced=kind != "auto",
        most=1 if single else CALLS_MAX,
    )


def calls_in(text: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The names and inputs in a text that is nothing but calls: a list of `{"name", "arguments"}`, as `calls_schema`
    has it, or such objects behind each other. None in any other text."""
    found: list[Any] = []
    rest = text.strip()
    decoder = json.JSONDecoder()
    try:
        while rest:
            value, end = decoder.raw_decode(rest)
            found += value if isinstance(value, list) else [value]
            rest = rest[end:].lstrip(" \t\r\n;,")
    except (ValueError, RecursionError):
        return []
    calls = [_call(value) for value in found]
    return [call for call in calls if call is not None] if None not in calls else []


def _call(value: Any) -> tuple[str, Mapping[str, Any]] | None:
    """Llama models speak of "parameters"."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    given = value.get("arguments", value.get("parameters"))
    return (value["name"], given) if is_input(given) else None


def is_input(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a model's input of a tool is an object that can be written as JSON again: 1e999 was read as infinite."""
    try:
        check_bounds({"input": value}, INPUT_MAX_BYTES)
    except CallerError:
        return False
    return isinstance(value, dict)


def _tool(path: str, raw: Mapping[str, Any]) -> Tool:
    kind = raw.get("type")
    if kind not in (None, "custom"):
        _reject(path, f"{kind:.100} tools are not supported; only tools that the caller runs are")
    if not TOOL_NAME.fullmatch(raw["name"]):
        _reject(f"{path}.name", "must have 1 to 128 letters, digits, underscores and hyphens")
    schema = {"type": "object", **raw["input_schema"]}
    if schema["type"] != "object":
        _reject(f"{path}.input_schema.type", 'must be "object"')
    try:
        validator_of(schema)
    except BadSchema as fault:
        _reject(f"{path}.input_schema", str(fault))
    return Tool(raw["name"], raw.get("description") or "", schema, raw.get("strict") is True)


def _reject(path: str, fault: str) -> NoReturn:
    raise RequestRejected(f"{path}: {fault}", param=path)


def _check_input(tool: Tool, value: Mapping[str, Any]) -> None:
    """Of the input only names of properties are repeated, so that an error holds no completion."""
    start = f"Output validation failed in the input of {tool.name}"
    try:
        error = best_match(errors_in(validator_of(tool.input_schema), value))
    except (RanAway, RecursionError, ArithmeticError):
        raise OutputInvalid(f"{start}: the check was given up") from None
    if error is not None:
        raise OutputInvalid(f"{start} at {error.json_path:.200}: must meet its {error.validator or 'schema'}")


def _moved(schema: Any, root: str) -> Any:
    """The schema as it must be where its own root stands at `root` of another one."""
    if isinstance(schema, list):
        return [_moved(value, root) for value in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[name] = root + value[1:]
        elif name in NAMED_SCHEMAS and isinstance(value, dict):
            moved[name] = {key: _moved(child, root) for key, child in value.items()}
        elif name not in ("$schema", "$id"):
            moved[name] = value if name in _VALUES else _moved(value, root)
    return moved
