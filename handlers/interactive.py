"""Interactive jobs of a model endpoint: one call of the engine in, what the generator handler yields out.

A caller of RunPod's `/openai/v1/...` sends `{"openai_route", "openai_input"}` (the platform makes it from the HTTP
request) and gets OpenAI's own bodies; a caller of /run or /runsync may also send worker-vllm's plain input
(`handlers/plain_input.py`). A refusal fails the job with the engine's error body as its error text.

`{"message": {"params"}}` is one request as a batch has them, answered now; it fails with our own errors.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any
from uuid import uuid4

from pydantic import ConfigDict, Field

from handlers.gathering import gathered
from handlers.plain_input import plain_answer, plain_call
from shared.core.cards import ModelCard
from shared.core.requests import Params, Wire, parse
from shared.core.views import message_view, usage_view
from shared.errors import InvalidRequest
from shared.flow.answering import answer
from shared.ports.engine import Call, Engine, Reply

OPENAI_FIELDS = frozenset({"openai_route", "openai_input"})
PLAIN_FIELDS = frozenset({"prompt", "messages"})
MESSAGE_FIELDS = frozenset({"message"})
MODELS_PATH = "/v1/models"
REFUSAL_MAX_CHARS = 2000
SHOWN_CHARS = 200


class OpenAIInput(Wire):
    """Made by the platform, so fields that it may add are none of our business. A route without a body is a GET of
    the models."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    openai_route: Annotated[str, Field(max_length=256)] = "/v1/chat/completions"
    openai_input: dict[str, Any] | None = None


class MessageAsked(Wire):
    params: Params


class MessageInput(Wire):
    message: MessageAsked


def is_interactive(job_input: Mapping[str, Any]) -> bool:
    """Whether a job wants one answer now; others bring shards of batches."""
    return not (OPENAI_FIELDS | PLAIN_FIELDS | MESSAGE_FIELDS).isdisjoint(job_input)


async def chunks(engine: Engine, card: ModelCard, job_input: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """What the handler yields: one object, or the pieces of a stream as they come. An object `{"error": text}` is the
    last one and fails the job. Closing it aborts the call.

    Raises InvalidRequest for an input that makes no call, EngineDead; for a message any EngineError.
    """
    if not MESSAGE_FIELDS.isdisjoint(job_input):
        yield await message(engine, card, job_input)
        return
    openai = not OPENAI_FIELDS.isdisjoint(job_input)
    reply = await engine.call(openai_call(job_input) if openai else plain_call(job_input))
    async with aclosing(reply.chunks):
        if reply.status_code >= 400:
            yield {"error": refusal(await _body(reply), reply.status_code)}
            return
        async with aclosing(openai_answer(reply) if openai else plain_answer(reply)) as answer:
            async for chunk in answer:
                yield chunk


async def message(engine: Engine, card: ModelCard, job_input: dict[str, Any]) -> dict[str, Any]:
    """`{"message": {"content", "stop_reason", "stop_sequence"}, "usage", "model"}`. Raises InvalidRequest, TooLarge or
    an EngineError."""
    asked = parse(MessageInput, job_input, card.shard_bytes).message.params
    if asked.max_tokens > card.context_tokens:
        path = "message.params.max_tokens"
        raise InvalidRequest(f"{path}: at most {card.context_tokens} for {card.name}", param=path)
    defaults = {"max_tokens": asked.max_tokens, "temperature": asked.temperature}
    params = {**job_input["message"]["params"], **defaults}
    done = await answer(engine, f"message:{uuid4().hex}", params, urgent=True)
    return {
        "message": message_view(done.text, done.calls, done.stop_reason, done.stop_sequence),
        "usage": usage_view(done.input_tokens, done.output_tokens),
        "model": card.name,
    }


def openai_call(job_input: dict[str, Any]) -> Call:
    asked = parse(OpenAIInput, job_input)
    path = f"/{asked.openai_route.strip('/').removeprefix('openai/')}"
    path = path if path.startswith("/v1/") else f"/v1{path}"
    if path == MODELS_PATH:
        return Call("GET", path)
    return Call("POST", path, asked.openai_input or {})


def refusal(body: str, status_code: int) -> str:
    """The engine's error body as it is; a long one, which repeats what the caller sent, in few words."""
    if 0 < len(body) <= REFUSAL_MAX_CHARS:
        return body
    said = f": {body[:SHOWN_CHARS]}..." if body else ""
    message = f"the engine refused with status {status_code}{said}"
    return json.dumps({"error": {"message": message, "type": "BadRequestError", "code": status_code}})


async def openai_answer(reply: Reply) -> AsyncGenerator[Any, None]:
    """The JSON body as it is, or the text of the server-sent events."""
    if not reply.streaming:
        yield json.loads(await _body(reply))
        return
    async with aclosing(gathered(reply.chunks)) as pieces:
        async for piece in pieces:
            yield piece.decode()


async def _body(reply: Reply) -> str:
    return b"".join([chunk async for chunk in reply.chunks]).decode()
