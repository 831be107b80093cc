"""The plain input of worker-vllm, which many callers of RunPod send, as a call of the OpenAI API and back.

`{"prompt" | "messages", "sampling_params", "stream", ...}` in; `{"choices": [{"tokens": [text]}], "usage": {"input",
"output"}}` out, one for a whole answer, or one for each piece of a stream with the tokens of that piece.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import Field

from handlers.gathering import END_OF_EVENT, gathered
from shared.core.requests import Wire, parse
from shared.errors import InvalidRequest
from shared.ports.engine import Call, Reply

# Those of worker-vllm and of vLLM's sampling parameters. Named in each call: the API's own defaults would be those
# that the model's files recommend.
DEFAULTS: Mapping[str, Any] = {"max_tokens": 100, "temperature": 1.0, "top_p": 1.0}


class SamplingParams(Wire):
    """vLLM's sampling parameters that the API takes by the same name. An unknown one is refused by its name, as vLLM
    itself does it; ranges are the engine's business."""

    n: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None


class PlainInput(Wire):
    """`messages` win over `prompt`. The batch sizes are hints for streams, which are cut by time here instead."""

    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]] | None, Field(min_length=1)] = None
    sampling_params: SamplingParams = SamplingParams()
    stream: bool = False
    apply_chat_template: bool = False
    max_batch_size: int | None = None
    min_batch_size: int | None = None
    batch_size_growth_factor: float | None = None


def plain_call(job_input: dict[str, Any]) -> Call:
    """The call that answers the input. Raises InvalidRequest, which names the field."""
    asked = parse(PlainInput, job_input)
    body = {**DEFAULTS, **asked.sampling_params.model_dump(exclude_none=True), "stream": asked.stream}
    if asked.stream:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    if asked.messages is not None:
        return Call("POST", "/v1/chat/completions", {**body, "messages": asked.messages})
    if asked.prompt is None:
        raise InvalidRequest("prompt: required field is missing", param="prompt")
    if asked.apply_chat_template:
        messages = [{"role": "user", "content": asked.prompt}]
        return Call("POST", "/v1/chat/completions", {**body, "messages": messages})
    return Call("POST", "/v1/completions", {**body, "prompt": asked.prompt})


async def plain_answer(reply: Reply) -> AsyncGenerator[dict[str, Any], None]:
    """The answer in worker-vllm's form; an error inside a stream ends it with `{"error": text}`."""
    if not reply.streaming:
        body = json.loads(b"".join([chunk async for chunk in reply.chunks]))
        yield _plain([_text(choice) for choice in body["choices"]], body["usage"])
        return
    usage: Mapping[str, int] = {}
    async with aclosing(gathered(reply.chunks)) as pieces:
        async for piece in pieces:
            tokens: list[str] = []
            for event in _events(piece):
                if "error" in event:
                    yield {"error": json.dumps(event)}
                    return
                usage = event.get("usage") or usage
                tokens += [_text(choice) for choice in event["choices"] if _says_something(choice)]
            if tokens:
                yield _plain(tokens, usage)


def _plain(tokens: list[str], usage: Mapping[str, int]) -> dict[str, Any]:
    counts = {"input": usage.get("prompt_tokens", 0), "output": usage.get("completion_tokens", 0)}
    return {"choices": [{"tokens": tokens}], "usage": counts}


def _text(choice: Mapping[str, Any]) -> str:
    """Of a completion, a chat, or an event of either."""
    said = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
    return said.get("content") or ""


def _says_something(choice: Mapping[str, Any]) -> bool:
    """Not the first event of a chat, which only opens it."""
    return _text(choice) != "" or choice.get("finish_reason") is not None


def _events(piece: bytes) -> Iterator[dict[str, Any]]:
    for event in piece.split(END_OF_EVENT):
        data = event.removeprefix(b"data:").strip()
        if data and data != b"[DONE]":
            yield json.loads(data)
