"""The OpenAI API as the simulated engine speaks it: calls are read here, and bodies, events and errors written.

The shapes are those of vLLM's server. What changes an answer but can't be simulated (tools, several choices) is
refused by name; sampling parameters, which change nothing here, are let pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.ports.engine import Call, Completion

# What a completion has where it names no limit, and a chat: more than any simulated answer.
COMPLETION_MAX_TOKENS = 16
CHAT_MAX_TOKENS = 2048
REFUSED_FIELDS = ("tools", "functions", "best_of", "use_beam_search")
ERROR_TYPES = {400: "BadRequestError", 404: "NotFoundError", 503: "ServiceUnavailableError"}
DONE = b"data: [DONE]\n\n"

Params = Mapping[str, Any]


class Refusal(Exception):
    """A call that is answered with an error body."""

    def __init__(self, status_code: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self._param = param

    def to_body(self) -> bytes:
        fields = {"message": str(self), "type": ERROR_TYPES[self.status_code], "param": self._param}
        return _json({"error": {**fields, "code": self.status_code}})


@dataclass(frozen=True)
class Ask:
    """A call that can be answered. `prompts` are parameters as a request of a batch has them: one for a chat, one or
    more for a completion. Streams end with a usage event (`ends_with_usage`) or count in each event (`counts_on`)."""

    chat: bool
    model: str
    prompts: Sequence[Params]
    stream: bool
    ends_with_usage: bool
    counts_on: bool


def read_ask(call: Call, models: Sequence[str]) -> Ask:
    """What the call asks for. Raises Refusal: 404 for an unknown route or model, else 400 with the field's name."""
    read_prompts = _PROMPTS.get((call.method, call.path))
    if read_prompts is None:
        raise Refusal(404, f"There is no {call.method} {call.path:.100}")
    body = call.body or {}
    model = _model(body.get("model"), models)
    for name in REFUSED_FIELDS:
        if body.get(name):
            raise Refusal(400, f"{name} is not supported by the simulated engine", name)
    if body.get("n") not in (None, 1):
        raise Refusal(400, "n must be 1: this endpoint gives one choice a call", "n")
    _check_number(body, "temperature", 0, 2)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise Refusal(400, "stream_options must be an object", "stream_options")
    with_usage = bool(options.get("include_usage"))
    return Ask(
        chat=call.path.startswith("/v1/chat"),
        model=model,
        prompts=read_prompts(body),
        stream=body.get("stream") is True,
        ends_with_usage=with_usage,
        counts_on=with_usage and bool(options.get("continuous_usage_stats")),
    )


def models_body(models: Sequence[str], created_s: int) -> bytes:
    """The body of GET /v1/models: every name that the endpoint answers to."""
    about = {"object": "model", "created": created_s, "owned_by": "simulated"}
    return _json({"object": "list", "data": [{"id": name, **about} for name in models]})


class Writer:
    """Writes the answer to one call; all its bodies and events share `answer_id` and `created_s`."""

    def __init__(self, ask: Ask, answer_id: str, created_s: int) -> None:
        prefix, kind = ("chatcmpl", "chat.completion") if ask.chat else ("cmpl", "text_completion")
        self._chat = ask.chat
        self._head = {
            "id": f"{prefix}-{answer_id}",
            "object": kind + (".chunk" if ask.chat and ask.stream else ""),
            "created": created_s,
            "model": ask.model,
        }

    def whole(self, answers: Sequence[Completion]) -> bytes:
        choices = [self._choice(n, answer.text, _finish_reason(answer)) for n, answer in enumerate(answers)]
        return _json({**self._head, "choices": choices, "usage": usage(answers)})

    def event(
        self,
        index: int,
        delta: Mapping[str, str],
        finish_reason: str | None = None,
        counted: Mapping[str, int] | None = None,
    ) -> bytes:
        """One event of a stream: `delta` holds the new `content`, and a chat's first one the `role`."""
        said = {"delta": delta} if self._chat else {"text": delta.get("content", "")}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish_reason}
        counts = {"usage": counted} if counted else {}
        return _event({**self._head, "choices": [choice], **counts})

    def last(self, counted: Mapping[str, int]) -> bytes:
        """The usage event, which has no choice."""
        return _event({**self._head, "choices": [], "usage": counted})

    def _choice(self, index: int, text: str, finish_reason: str) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": finish_reason}


def deltas(answer: Completion) -> list[tuple[str, str | None]]:
    """A text's tokens as a stream sends them: each with its leading space, the last one with its finish reason."""
    first, *others = answer.text.split(" ")
    tokens = [first, *(f" {word}" for word in others)]
    return [(token, None) for token in tokens[:-1]] + [(tokens[-1], _finish_reason(answer))]


def usage(answers: Sequence[Completion], output_tokens: int | None = None) -> dict[str, int]:
    """Tokens of all answers; `output_tokens` where not all of them are out yet."""
    read = sum(answer.input_tokens for answer in answers)
    written = sum(answer.output_tokens for answer in answers) if output_tokens is None else output_tokens
    return {"prompt_tokens": read, "total_tokens": read + written, "completion_tokens": written}


def _finish_reason(answer: Completion) -> str:
    return "length" if answer.stop_reason == "max_tokens" else "stop"


def _model(name: object, models: Sequence[str]) -> str:
    if name is None and models:
        return models[0]
    if models and name not in models:
        raise Refusal(404, f"The model `{name!s:.100}` does not exist.", "model")
    return models[0] if models else str(name or "simulated")


def _chat_prompts(body: Params) -> list[Params]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "messages must be a list with at least one message", "messages")
    said = [_message(message, f"messages[{n}]") for n, message in enumerate(messages)]
    system = "\n".join(message["content"] for message in said if message["role"] == "system")
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    others = [message for message in said if message["role"] != "system"]
    return [
        {
            "system": system,
            "messages": others or [{"role": "user", "content": ""}],
            "max_tokens": _max_tokens(body, limit, CHAT_MAX_TOKENS),
        }
    ]


def _completion_prompts(body: Params) -> list[Params]:
    prompt = body.get("prompt")
    texts = prompt if isinstance(prompt, list) else [prompt]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, "prompt must be text, or a list of texts", "prompt")
    max_tokens = _max_tokens(body, "max_tokens", COMPLETION_MAX_TOKENS)
    return [{"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens} for text in texts]


_PROMPTS: Mapping[tuple[str, str], Callable[[Params], list[Params]]] = {
    ("POST", "/v1/chat/completions"): _chat_prompts,
    ("POST", "/v1/completions"): _completion_prompts,
}


def _message(message: object, name: str) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
        raise Refusal(400, f"{name}.role must be system, user or assistant", f"{name}.role")
    content = message.get("content")
    if isinstance(content, list):
        content = _joined(content)
    if not isinstance(content, str):
        raise Refusal(400, f"{name}.content must be text", f"{name}.content")
    return {"role": message["role"], "content": content}


def _joined(parts: list[Any]) -> str | None:
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if len(texts) == len(parts) else None


def _max_tokens(body: Params, name: str, default: int) -> int:
    if body.get(name) is None:
        return default
    _check_number(body, name, 1, float("inf"))
    return int(body[name])


def _check_number(body: Params, name: str, least: float, most: float) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        limits = f"at least {least:g}" if most == float("inf") else f"{least:g} to {most:g}"
        raise Refusal(400, f"{name} must be a number, {limits}; got {value!r:.100}", name)


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def _event(body: object) -> bytes:
    return b"data: " + _json(body) + b"\n\n"
