"""An engine without a GPU: deterministic text, honest token counts, and the timing of continuous batching.

A request takes a slot for `ttft + output_tokens * tpot`; further requests wait their turn, interactive ones before
those of batches. Markers in the last message make it fail on purpose, for tests and demonstrations:
`[[error]]` rejects the request, `[[busy]]` fails it for now each time, `[[busy-once]]` the first time only,
`[[stall]]` never answers (a stream: nothing beyond the first token), `[[dead]]` kills the engine, `[[kill]]` the whole
process. Where JSON is asked for, `[[invalid]]` gives JSON that is not as asked for, `[[invalid-once]]` the first time
only. So it does with the input of a tool.

Of the tools on offer it calls the one that it must (of several the first), else all that the last message's text names,
with inputs that fit their schemas.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any
from uuid import uuid4

from shared.core.content import text_of
from shared.core.conversation import conversation_of
from shared.core.tools import TOOL_NAME, Tool, ToolCall, calls_in, offer_of
from shared.engines.simulated_json import asked_for, broken, instance
from shared.engines.simulated_openai import (
    DONE,
    Ask,
    Refusal,
    Writer,
    deltas,
    models_body,
    read_ask,
    usage,
)
from shared.engines.slots import Slots
from shared.errors import EngineBusy, EngineDead, RequestRejected
from shared.ports.engine import Call, Completion, Prompt, Reply

CHARS_PER_TOKEN = 4
MIN_TOKENS, MAX_TOKENS = 32, 128
WORDS = (
    *(
        "your",
        "team",
        "growth",
        "pipeline",
        "revenue",
        "platform",
        "customers",
        "quarter",
        "launch",
        "market",
    ),
    *(
        "hiring",
        "region",
        "partner",
        "insight",
        "signal",
        "stack",
        "budget",
        "roadmap",
        "adoption",
        "quality",
    ),
    *("speed", "cost", "scale", "trust", "outcome", "manual", "reporting", "week", "demo"),
)


@dataclass(frozen=True)
class SimTiming:
    """Milliseconds to the first token and for each token, and requests that run at once."""

    ttft_ms: float
    tpot_ms: float
    slots: int


def prompt_text(params: Mapping[str, Any]) -> str:
    """All the text that a model would read, but for the tools on offer."""
    said = [_content_text(message["content"]) for message in params["messages"]]
    return "\n".join([text_of(params.get("system")), *said])


def _content_text(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_block_text(block) for block in content)


def _block_text(block: Mapping[str, Any]) -> str:
    if block["type"] == "tool_use":
        return f"{block['name']} {json.dumps(block['input'])}"
    return text_of(block.get("content")) if block["type"] == "tool_result" else block.get("text", "")


def last_text(params: Mapping[str, Any]) -> str:
    """What the last message says in text blocks."""
    return text_of(params["messages"][-1]["content"])


def output_tokens(params: Mapping[str, Any]) -> int:
    """How many tokens the answer to this request has, within max_tokens: as many as the JSON that is asked for has
    words, else 32 to 128 by the prompt's digest."""
    asked = _json(params, invalid=False)
    wanted = MIN_TOKENS + _digest(params)[0] * (MAX_TOKENS - MIN_TOKENS + 1) // 256
    return min(wanted if asked is None else len(asked.split()), int(params["max_tokens"]))


def answer(params: Mapping[str, Any], *, invalid: bool = False) -> str:
    """The answer to this request: always the same words for the same prompt, one word a token; or JSON where that is
    asked for or a tool is called, if wished not as asked."""
    asked = _json(params, invalid=invalid)
    if asked is not None:
        words = asked.split()
        cut = len(words) > params["max_tokens"]
        return " ".join(words[: params["max_tokens"]]) if cut else asked
    digest = _digest(params)
    count = output_tokens(params)
    return " ".join(WORDS[(digest[n % len(digest)] + 7 * n) % len(WORDS)] for n in range(count))


def _json(params: Mapping[str, Any], *, invalid: bool) -> str | None:
    first = _digest(params)[0] % len(WORDS)
    words = WORDS[first:] + WORDS[:first]
    called = _called(params)
    if called:
        inputs = [instance(tool.input_schema, words) for tool in called]
        return json.dumps(
            [
                {"name": tool.name, "arguments": broken(made) if invalid else made}
                for tool, made in zip(called, inputs, strict=True)
            ]
        )
    return asked_for(params, words, invalid=invalid)


def _called(params: Mapping[str, Any]) -> list[Tool]:
    offer = offer_of(params)
    if offer is None:
        return []
    named = set(TOOL_NAME.findall(last_text(params)))
    wanted = offer.callable if offer.forced else [tool for tool in offer.callable if tool.name in named]
    return list(wanted[: 1 if offer.forced else offer.most])


def complete(params: Mapping[str, Any], *, invalid: bool = False) -> Completion:
    """The whole answer to this request, with its counts."""
    text = answer(params, invalid=invalid)
    tokens = len(text.split())
    calls = calls_in(text) if _called(params) else []
    reason = "tool_use" if calls else "max_tokens" if tokens == params["max_tokens"] else "end_turn"
    return Completion(
        text="" if calls else text,
        input_tokens=max(1, len(prompt_text(params)) // CHARS_PER_TOKEN),
        output_tokens=tokens,
        stop_reason=reason,
        calls=tuple(
            ToolCall(_call_id(params, number), name, value) for number, (name, value) in enumerate(calls)
        ),
    )


def _call_id(params: Mapping[str, Any], number: int) -> str:
    return "toolu_" + hashlib.sha256(_digest(params) + bytes([number])).hexdigest()[:24]


def duration_s(params: Mapping[str, Any], timing: SimTiming) -> float:
    """How long the request holds its slot."""
    return (timing.ttft_ms + timing.tpot_ms * output_tokens(params)) / 1000


def _digest(params: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(prompt_text(params).encode("utf-8", "surrogatepass")).digest()


class SimulatedEngine:
    """`models`: the names that it answers to in a call, its own first; without any it answers to all."""

    def __init__(self, timing: SimTiming, models: Sequence[str] = ()) -> None:
        self._timing = timing
        self._models = models
        self._slots = Slots(timing.slots)
        self._failed_once: set[str] = set()
        self._alive = True

    @property
    def slots(self) -> int:
        return self._timing.slots

    @property
    def alive(self) -> bool:
        return self._alive

    @property
    def request_s(self) -> float:
        return (self._timing.ttft_ms + self._timing.tpot_ms * (MIN_TOKENS + MAX_TOKENS) / 2) / 1000

    def start(self) -> None:
        """There is nothing to load."""

    async def generate(self, prompt: Prompt) -> Completion:
        async with self._slots.one(urgent=prompt.urgent):
            self._misbehave(prompt.params)
            conversation_of(prompt.params)
            return await self._answer_in_time(prompt.params)

    async def call(self, call: Call) -> Reply:
        try:
            if (call.method, call.path) == ("GET", "/v1/models"):
                return Reply(200, False, _once(models_body(self._models, int(time()))))
            ask = read_ask(call, self._models)
            for params in ask.prompts:
                self._misbehave(params)
        except RequestRejected as error:
            return _refused(Refusal(error.status_code, error.message))
        except EngineBusy as error:
            return _refused(Refusal(503, error.message))
        except Refusal as refusal:
            return _refused(refusal)
        writer = Writer(ask, uuid4().hex, int(time()))
        return Reply(200, ask.stream, self._stream(ask, writer) if ask.stream else self._whole(ask, writer))

    def close(self) -> None:
        """There is nothing to unload."""

    async def _whole(self, ask: Ask, writer: Writer) -> AsyncGenerator[bytes, None]:
        yield writer.whole(await asyncio.gather(*(self._answer_urgently(params) for params in ask.prompts)))

    async def _answer_urgently(self, params: Mapping[str, Any]) -> Completion:
        async with self._slots.one(urgent=True):
            return await self._answer_in_time(params)

    async def _answer_in_time(self, params: Mapping[str, Any]) -> Completion:
        await _stall_if_asked(params)
        await asyncio.sleep(duration_s(params, self._timing))
        return complete(params, invalid=self._is_invalid(last_text(params)))

    def _is_invalid(self, text: str) -> bool:
        once = "[[invalid-once]]" in text and text not in self._failed_once
        if once:
            self._failed_once.add(text)
        return once or "[[invalid]]" in text

    async def _stream(self, ask: Ask, writer: Writer) -> AsyncGenerator[bytes, None]:
        answers = [complete(params) for params in ask.prompts]
        for index, (params, whole) in enumerate(zip(ask.prompts, answers, strict=True)):
            async with self._slots.one(urgent=True):
                await asyncio.sleep(self._timing.ttft_ms / 1000)
                if ask.chat:
                    role = {"role": "assistant", "content": ""}
                    yield writer.event(index, role, counted=usage([whole], 0) if ask.counts_on else None)
                for number, (token, finish_reason) in enumerate(deltas(whole), start=1):
                    await asyncio.sleep(self._timing.tpot_ms / 1000)
                    counted = usage([whole], number) if ask.counts_on else None
                    yield writer.event(index, {"content": token}, finish_reason, counted)
                    await _stall_if_asked(params)
        if ask.ends_with_usage:
            yield writer.last(usage(answers))
        yield DONE

    def _misbehave(self, params: Mapping[str, Any]) -> None:
        text = last_text(params)
        self._alive = self._alive and "[[dead]]" not in text
        if not self._alive:
            raise EngineDead("a prompt asked the simulated engine to die")
        if "[[" not in text:
            return
        if "[[error]]" in text:
            raise RequestRejected("the prompt asked the simulated engine to reject it")
        if "[[busy]]" in text:
            raise EngineBusy("the prompt asked the simulated engine to be busy")
        if "[[busy-once]]" in text and text not in self._failed_once:
            self._failed_once.add(text)
            raise EngineBusy("the prompt asked the simulated engine to be busy once")
        if "[[kill]]" in text:
            os.kill(os.getpid(), signal.SIGKILL)


async def _stall_if_asked(params: Mapping[str, Any]) -> None:
    if "[[stall]]" in last_text(params):
        await asyncio.Event().wait()


def _refused(refusal: Refusal) -> Reply:
    return Reply(refusal.status_code, False, _once(refusal.to_body()))


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
