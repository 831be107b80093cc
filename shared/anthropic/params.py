"""A request of Anthropic's API as one of our own dialect. Pure: it says what may not be, and the core checks the rest.

Anthropic looks at a batch's requests after it took the batch: a fault of one request's `params` is that request's own
errored line. So it is here: such a request goes along as a refusal, which a worker answers without its engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import FailFast, Field

from shared.anthropic.exchange import BODY_MAX_BYTES
from shared.core.bounds import field_path
from shared.core.cards import ModelCard
from shared.core.requests import Params, Request, Wire, parse
from shared.core.routing import Router
from shared.core.structured import schema_format
from shared.errors import CallerError, InvalidRequest, NotFound

DEFAULT_TEMPERATURE = 1.0
REQUIRED = ("model", "max_tokens", "messages")
# Of Anthropic's parameters those that change nothing for a text model of our own: taken, and left out.
IGNORED = frozenset(
    {
        "betas",
        "cache_control",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "service_tier",
        "speed",
        "user_profile_id",
    }
)
# Taken where they ask for nothing: null or empty.
EMPTY_ONLY = frozenset({"container", "context_management", "mcp_servers"})
# As in our own dialect: its parameters, and what its worker looks at.
SAME = frozenset(Params.model_fields) | {"thinking"}
# These have another place there.
MOVED = frozenset({"metadata", "output_config", "output_format"})


class BatchRequest(Wire):
    """One entry of a create's `requests`, with Anthropic's own rule for its name."""

    custom_id: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: dict[str, Any]


class RequestsBody(Wire):
    """The body of a create, and of one part of a large one."""

    requests: Annotated[list[BatchRequest], Field(min_length=1), FailFast()]


class UploadRef(Wire):
    key: Annotated[str, Field(min_length=1, max_length=256)]
    parts: Annotated[int, Field(ge=1)]


class UploadBody(Wire):
    """The body of a create whose requests were uploaded in parts."""

    upload: UploadRef


class JsonOutput(Wire):
    """Anthropic's JSON output format."""

    type: Annotated[str, Field(pattern="^json_schema$")]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Wire):
    effort: str | None = None
    format: JsonOutput | None = None


class OutputFields(Wire):
    output_config: OutputConfig | None = None
    output_format: JsonOutput | None = None


@dataclass(frozen=True)
class Accepted:
    """A request in our own dialect, and the card of the model that it goes to."""

    card: ModelCard
    request: Mapping[str, Any]


def accept(router: Router, stage: str | None, custom_id: str, params: Mapping[str, Any]) -> Accepted:
    """Raises InvalidRequest, which names the field within `params`, or NotFound for an unknown model."""
    request = _own_request(custom_id, params)
    asked = None
    try:
        asked = parse(Request, request, BODY_MAX_BYTES)
        card = router.choose(stage, asked, "")
    except InvalidRequest as fault:
        text, param = fault.message.removeprefix("params."), (fault.param or "").removeprefix("params.")
        if asked is not None and param == "model":
            raise NotFound(text, param=param) from None
        raise InvalidRequest(text, param=param) from None
    if len(json.dumps(request)) > card.shard_bytes:
        raise InvalidRequest(f"messages: at most {card.shard_bytes} bytes in a request", param="messages")
    return Accepted(card, request)


def accept_all(
    router: Router, stage: str | None, requests: Sequence[BatchRequest]
) -> list[Mapping[str, Any]]:
    """All requests of a batch in our own dialect, those that can't run as refusals."""
    results = [_accept_or_fault(router, stage, request) for request in requests]
    # A refusal goes where others go all the same: no worker starts for it alone.
    names = (result.card.name for result in results if isinstance(result, Accepted))
    model = next(names, router.cards[0].name)
    return [
        result.request if isinstance(result, Accepted) else _refused(request.custom_id, model, result)
        for request, result in zip(requests, results, strict=True)
    ]


def _accept_or_fault(router: Router, stage: str | None, request: BatchRequest) -> Accepted | CallerError:
    try:
        return accept(router, stage, request.custom_id, request.params)
    except CallerError as fault:
        return fault


def _refused(custom_id: str, model: str, fault: CallerError) -> Mapping[str, Any]:
    """Nothing of its params: they could be anything, and no engine will read them."""
    kind = (NotFound if isinstance(fault, NotFound) else InvalidRequest).type
    return {
        "custom_id": custom_id,
        "params": {"messages": [{"role": "user", "content": "refused"}], "max_tokens": 1},
        "metadata": {"model_hint": model},
        "refusal": {"type": kind, "message": fault.message},
    }


def _own_request(custom_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in params.items() if value is not None}
    for name in REQUIRED:
        if name not in given:
            raise InvalidRequest(f"{name}: required field is missing", param=name)
    if given.pop("stream", False) is not False:
        raise InvalidRequest("stream: streaming is not supported; leave it out", param="stream")
    own: dict[str, Any] = {"temperature": DEFAULT_TEMPERATURE}
    for name, value in given.items():
        if name in SAME:
            own[name] = value
        else:
            _check_not_ours(name, value)
    if (schema := _schema(given)) is not None:
        own["response_format"] = schema_format(schema)
    request: dict[str, Any] = {"custom_id": custom_id, "params": own}
    if "metadata" in given:
        request["metadata"] = given["metadata"]
    return request


def _check_not_ours(name: str, value: Any) -> None:
    if name in EMPTY_ONLY and value:
        raise InvalidRequest(f"{name}: not supported; the model reads and writes text only", param=name)
    if name not in EMPTY_ONLY | IGNORED | MOVED:
        path = field_path((name,))
        raise InvalidRequest(f"{path}: unknown field", param=path)


def _schema(given: Mapping[str, Any]) -> Mapping[str, Any] | None:
    fields = {name: given[name] for name in OutputFields.model_fields if name in given}
    if not fields:
        return None
    asked = parse(OutputFields, fields)
    output = (asked.output_config and asked.output_config.format) or asked.output_format
    return output.schema_ if output else None
