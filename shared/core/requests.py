"""What a caller may send, and the typed error for what it may not. The first step of every operation.

Wire models are strict (a number is not a string, a role is one of two). Unknown fields of a request, its `params` and
its `metadata` are kept; unknown fields of an operation or a message are refused, because a misspelt option that is
ignored is a lost option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from shared.core.bounds import check_bounds, field_path
from shared.core.sharding import PARTS_MAX
from shared.errors import InvalidRequest, NotFound

CUSTOM_ID_MAX_CHARS = 256
DEFAULT_MAX_TOKENS = 2048
DEFAULT_TEMPERATURE = 0.2
# Of a call that brings no batch.
CALL_MAX_BYTES = 1024 * 1024
# A job's ttl follows its batch's expiry; for none of RunPod's limits is more than 7 days documented.
EXPIRES_IN_MIN_S, EXPIRES_IN_MAX_S = 10, 7 * 24 * 3600

Text = Annotated[str, Field(min_length=1)]
BATCH_ID = re.compile(r"batch_[0-9a-f]{24}")
AnyId = Annotated[str, Field(min_length=1, max_length=256)]
# An engine compares each with every token of an answer.
StopSequences = Annotated[list[Text], Field(max_length=16)]
PageToken = Annotated[str, Field(min_length=1, max_length=4096)]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=256)]
UploadKey = Annotated[str, Field(min_length=1, max_length=256)]
ExpiresInS = Annotated[int, Field(ge=EXPIRES_IN_MIN_S, le=EXPIRES_IN_MAX_S)]


class Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Message(Wire):
    role: Literal["user", "assistant"]
    content: Text


class JsonSchema(Wire):
    """`schema` itself is looked at by the worker, where a bad one fails its own request only."""

    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Wire):
    """OpenAI's shape."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Annotated[JsonSchema | None, Field(validate_default=True)] = None

    @field_validator("json_schema")
    @classmethod
    def _goes_with_its_type(cls, value: JsonSchema | None, info: ValidationInfo) -> JsonSchema | None:
        kind = info.data.get("type")
        if kind == "json_schema" and value is None:
            raise ValueError("required field is missing")
        if kind in ("text", "json_object") and value is not None:
            raise ValueError('goes with type "json_schema" only')
        return value


class Params(Wire):
    """A request's parameters. Fields named here are checked; any other is kept and handed to the engine."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    messages: Annotated[list[Message], Field(min_length=1), FailFast()]
    system: str | None = None
    model: Text | None = None
    max_tokens: Annotated[int, Field(ge=1)] = DEFAULT_MAX_TOKENS
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = DEFAULT_TEMPERATURE
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1, lt=2**31)] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    stop_sequences: StopSequences | None = None
    stop: Annotated[
        StopSequences | None, BeforeValidator(lambda stop: [stop] if isinstance(stop, str) else stop)
    ] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=2)] = None
    min_tokens: Annotated[int | None, Field(ge=0)] = None
    response_format: ResponseFormat | None = None
    on_invalid: Literal["error", "retry"] = "error"
    ignore_eos: bool | None = None
    n: Literal[1] | None = None
    stream: Literal[False] | None = None


class Metadata(Wire):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    model_hint: Text | None = None


class Request(Wire):
    """One request. Fields beside these are kept with it."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    custom_id: Annotated[str, Field(min_length=1, max_length=CUSTOM_ID_MAX_CHARS)]
    params: Params
    metadata: Metadata | None = None


class CreateInput(Wire):
    operation: Literal["create"]
    requests: Annotated[list[Request], Field(min_length=1), FailFast()]
    stage: Text | None = None
    idempotency_key: IdempotencyKey | None = None
    priority: Literal["low", "normal", "high"] = "normal"
    expires_in_s: ExpiresInS | None = None


class UploadInput(Wire):
    """A part of a batch to come. `stage` and `expires_in_s` are those of the whole upload."""

    operation: Literal["upload"]
    upload: UploadKey
    part: Annotated[int, Field(ge=0, lt=PARTS_MAX)]
    requests: Annotated[list[Request], Field(min_length=1), FailFast()]
    stage: Text | None = None
    expires_in_s: ExpiresInS | None = None


class CreateFromUpload(Wire):
    """A create whose requests were uploaded in `parts` parts. `stage` and `expires_in_s` may be left out."""

    operation: Literal["create"]
    upload: UploadKey
    parts: Annotated[int, Field(ge=1, le=PARTS_MAX)]
    stage: Text | None = None
    idempotency_key: IdempotencyKey | None = None
    priority: Literal["low", "normal", "high"] = "normal"
    expires_in_s: ExpiresInS | None = None


class BatchInput(Wire):
    """`status`, `cancel` and `delete`: an operation on one batch."""

    operation: str
    id: AnyId


class RetryInput(Wire):
    operation: Literal["retry_failed"]
    id: AnyId
    idempotency_key: IdempotencyKey | None = None


class ResultsInput(Wire):
    operation: Literal["results"]
    id: AnyId
    page: PageToken | None = None
    partial: bool = False


class ListInput(Wire):
    operation: Literal["list"]
    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    page: PageToken | None = None


class WebhookInput(Wire):
    """A RunPod completion body, handed over by a relay. Nothing in it is believed: it only says where to look."""

    operation: Literal["webhook"]
    body: dict[str, Any]


class BareInput(Wire):
    """`reconcile`, `health` and `metrics`: no arguments."""

    operation: str


Model = TypeVar("Model", bound=Wire)


def parse(model: type[Model], payload: dict[str, Any], max_bytes: int = CALL_MAX_BYTES) -> Model:
    """`payload` as `model`, or InvalidRequest that names the first field at fault and its limit, or TooLarge."""
    check_bounds(payload, max_bytes)
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = field_path(first["loc"])
        text = _plain(first["type"], first["msg"], first.get("ctx", {}))
        more = error.error_count() - 1
        also = f" ({more} more fault{'s' if more > 1 else ''} beside it)" if more else ""
        raise InvalidRequest(f"{path}: {text}{also}", param=path) from None


def check_id(batch_id: str) -> str:
    """The id, if a batch can have it; NotFound for any other text, as for a batch that is not there."""
    if not BATCH_ID.fullmatch(batch_id):
        raise NotFound(f"Batch {batch_id!r:.100} not found", param="id")
    return batch_id


# A fault's text by pydantic's name for it, with the limit that was passed; others keep pydantic's own words.
_TEXTS = {
    "extra_forbidden": "unknown field",
    "missing": "required field is missing",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}


def _plain(kind: str, message: str, limits: Mapping[str, Any]) -> str:
    text = _TEXTS.get(kind)
    return text.format(**limits) if text else message


def check_unique(requests: list[Request]) -> None:
    """Raise InvalidRequest for the first custom_id that stands twice."""
    seen: dict[str, int] = {}
    for index, request in enumerate(requests):
        first = seen.setdefault(request.custom_id, index)
        if first != index:
            path = f"requests[{index}].custom_id"
            raise InvalidRequest(f"{path}: the same custom_id as requests[{first}]", param=path)
