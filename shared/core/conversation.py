"""A request's messages as a chat template wants them: roles that alternate, beginning with the user.

Callers follow Anthropic's rules, which are wider: turns of one role may follow each other (they are one turn), the last
one may be the assistant's (the answer goes on from there), and content may be a list of blocks. What a text model can't
read is refused by the block's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NoReturn

from shared.core.content import TURN_BREAK, joined, text_of
from shared.core.tools import Tool, ToolCall
from shared.errors import RequestRejected

# They would change the answer, and can't be had: to ignore them would be to answer something else.
UNSUPPORTED = ("functions", "logprobs", "mcp_servers", "modalities", "audio")
# For templates that know nothing of tools. It asks for what the parser `llama3_json` reads.
TOOLS_TEXT = (
    'You may call tools. To call one, answer with nothing but {"name": its name, "parameters": an object of its'
    " arguments}; separate several calls by semicolons. Where no tool is needed, answer in plain text. The tools, with"
    " the JSON Schemas of their parameters:"
)
# Mistral's template takes ids of this length only.
CALL_ID_CHARS = 9

Message = dict[str, Any]
# A block and where it stands.
Placed = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ToolResult:
    """What a tool answered to the call of that id. `name` is the tool's."""

    id: str
    name: str
    text: str


@dataclass(frozen=True)
class Turn:
    """`results` stand before the text, `calls` behind it. Only a user's turn has results, only an assistant's calls."""

    role: str
    text: str
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()

    def messages(self) -> list[Message]:
        """In the shape that chat templates share."""
        results: list[Message] = [
            {"role": "tool", "tool_call_id": _call_id(result.id), "name": result.name, "content": result.text}
            for result in self.results
        ]
        if not self.calls:
            text: list[Message] = [{"role": self.role, "content": self.text}]
            return results + text if self.text or not results else results
        calls = [
            {
                "id": _call_id(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": dict(call.input)},
            }
            for call in self.calls
        ]
        return [{"role": self.role, "content": self.text, "tool_calls": calls}]


@dataclass(frozen=True)
class Conversation:
    """`turns` alternate and begin and end with the user. `prefill` is how the answer must begin."""

    system: str
    turns: tuple[Turn, ...]
    prefill: str

    @property
    def has_calls(self) -> bool:
        return any(turn.calls or turn.results for turn in self.turns)

    def messages(self, *, fold_system: bool) -> list[Message]:
        """As a template takes them. Where it knows no system role, that text opens the first user turn."""
        turns = list(self.turns)
        if self.system and fold_system:
            turns[0] = replace(turns[0], text=self.system + TURN_BREAK + turns[0].text)
        elif self.system:
            turns.insert(0, Turn("system", self.system))
        return [message for turn in turns for message in turn.messages()]

    def with_results_last(self) -> Conversation:
        """For templates that want the assistant right after a tool's result: what a user says behind results becomes
        part of the last of them."""
        return replace(self, turns=tuple(_folded(turn) for turn in self.turns))

    def as_text(self, tools: Sequence[Tool]) -> Conversation:
        """For templates that know nothing of tools: the tools in the system text, calls and results in the turns."""
        system = joined([_tools_text(tools) if tools else "", self.system])
        return replace(self, system=system, turns=tuple(_as_text(turn) for turn in self.turns))


def conversation_of(params: Mapping[str, Any]) -> Conversation:
    """Raises RequestRejected where the assistant begins, for a block that is no text, where calls of tools and their
    results don't match, and for parameters that ask for what a text model can't do."""
    _check_supported(params)
    messages = params["messages"]
    if messages[0]["role"] != "user":
        _reject("messages[0].role", "a conversation begins with the user")
    turns: list[Turn] = []
    for role, said in groupby(enumerate(messages), lambda numbered: numbered[1]["role"]):
        blocks = [placed for index, message in said for placed in _blocks(f"messages[{index}]", message)]
        asked = turns[-1].calls if turns else ()
        turns.append(_assistant_turn(blocks) if role == "assistant" else _user_turn(blocks, asked))
    if turns[-1].calls:
        _unanswered(f"messages[{len(messages) - 1}]", turns[-1].calls[0].id)
    prefill = turns.pop().text if turns[-1].role == "assistant" else ""
    return Conversation(text_of(params.get("system")).strip(), tuple(turns), prefill)


def _check_supported(params: Mapping[str, Any]) -> None:
    for name in UNSUPPORTED:
        if params.get(name):
            _reject(f"params.{name}", "not supported by this model")
    thinking = params.get("thinking")
    if thinking is not None and thinking != {"type": "disabled"}:
        _reject("params.thinking", 'not supported by this model, except {"type": "disabled"}')


def _blocks(path: str, message: Mapping[str, Any]) -> Iterator[Placed]:
    content = message["content"]
    if isinstance(content, str):
        yield f"{path}.content", {"type": "text", "text": content}
        return
    for index, block in enumerate(content):
        yield f"{path}.content[{index}]", block


def _assistant_turn(blocks: Sequence[Placed]) -> Turn:
    texts: list[str] = []
    calls: dict[str, ToolCall] = {}
    for path, block in blocks:
        if block["type"] == "text":
            texts.append(block["text"])
        elif block["type"] == "tool_use":
            if block["id"] in calls:
                _reject(f"{path}.id", "the same id as another tool_use of the turn")
            calls[block["id"]] = ToolCall(block["id"], block["name"], block["input"])
        else:
            _misplaced(path, block["type"])
    return Turn("assistant", joined(texts), calls=tuple(calls.values()))


def _user_turn(blocks: Sequence[Placed], asked: Sequence[ToolCall]) -> Turn:
    names = {call.id: call.name for call in asked}
    texts: list[str] = []
    results: dict[str, ToolResult] = {}
    for path, block in blocks:
        if block["type"] == "text":
            texts.append(block["text"])
        elif block["type"] == "tool_result":
            if texts:
                _reject(path, "tool_result blocks stand before the text of a turn")
            wanted = block["tool_use_id"]
            if wanted not in names or wanted in results:
                _reject(
                    f"{path}.tool_use_id",
                    "not the id of a tool_use of the turn before that waits for a result",
                )
            results[wanted] = ToolResult(wanted, names[wanted], _result_text(path, block))
        else:
            _misplaced(path, block["type"])
    for call in asked:
        if call.id not in results:
            _unanswered(blocks[0][0].partition(".")[0], call.id)
    return Turn("user", joined(texts), results=tuple(results.values()))


def _result_text(path: str, block: Mapping[str, Any]) -> str:
    content = block.get("content")
    for index, inner in enumerate(content if isinstance(content, list) else ()):
        if inner["type"] != "text":
            _misplaced(f"{path}.content[{index}]", inner["type"])
    text = text_of(content)
    return f"Error: {text}" if block.get("is_error") else text


def _folded(turn: Turn) -> Turn:
    if not turn.results or not turn.text:
        return turn
    *others, last = turn.results
    return replace(turn, text="", results=(*others, replace(last, text=joined([last.text, turn.text]))))


def _as_text(turn: Turn) -> Turn:
    calls = "; ".join(json.dumps({"name": call.name, "parameters": call.input}) for call in turn.calls)
    results = [f"Result of {result.name}:\n{result.text}" for result in turn.results]
    return Turn(turn.role, joined([*results, turn.text, calls]))


def _tools_text(tools: Sequence[Tool]) -> str:
    listed = [
        json.dumps({"name": tool.name, "description": tool.description, "parameters": tool.input_schema})
        for tool in tools
    ]
    return joined([TOOLS_TEXT, *listed])


def _call_id(caller_id: str) -> str:
    return hashlib.sha256(caller_id.encode("utf-8", "surrogatepass")).hexdigest()[:CALL_ID_CHARS]


def _misplaced(path: str, kind: str) -> NoReturn:
    if kind == "tool_use":
        _reject(path, "tool_use blocks belong to the assistant")
    if kind == "tool_result":
        _reject(path, "tool_result blocks belong to the user")
    _reject(path, f"{kind:.100} blocks are not supported; the model reads text only")


def _unanswered(path: str, call_id: str) -> NoReturn:
    _reject(path, f"tool_use {call_id!r:.100} has no tool_result in the turn behind it")


def _reject(path: str, fault: str) -> NoReturn:
    raise RequestRejected(f"{path}: {fault}", param=path)
