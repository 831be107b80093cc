"""The shapes of the service's answers, as README's "Operations" gives them. More fields may be there, none may miss."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.smoke.report import Unexpected, shown

Stamp = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
BatchId = Annotated[str, Field(pattern=r"^batch_[0-9a-f]{24}$")]
Natural = Annotated[int, Field(ge=0)]


class Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class Created(Shape):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: BatchId


class Counts(Shape):
    """`canceled` and `expired` are there only where they are not 0."""

    model_config = ConfigDict(strict=True, extra="forbid")

    total: Natural
    succeeded: Natural
    errored: Natural
    pending: Natural
    canceled: Annotated[int, Field(ge=1)] | None = None
    expired: Annotated[int, Field(ge=1)] | None = None


class Callback(Shape):
    host: str
    state: Literal["pending", "delivered", "failed"]
    attempts: Natural
    error: str | None


class Batch(Shape):
    id: BatchId
    processing_status: Literal["collected", "submitted", "processing", "ended"]
    counts: Counts
    created_at: Stamp
    updated_at: Stamp
    expires_at: Stamp
    ended_at: Stamp | None
    cancel_requested_at: Stamp | None
    retry_of: BatchId | None
    callback: Callback | None
    models: dict[str, Natural]


class Text(Shape):
    type: Literal["text"]
    text: str


class Message(Shape):
    content: Annotated[list[Text], Field(min_length=1, max_length=1)]


class Usage(Shape):
    input_tokens: Annotated[int, Field(ge=1)]
    output_tokens: Natural


class Fault(Shape):
    type: str
    message: Annotated[str, Field(min_length=1)]


class SucceededLine(Shape):
    custom_id: str
    status: Literal["succeeded"]
    message: Message
    usage: Usage
    error: None
    model: str
    latency_ms: Natural


class OtherLine(Shape):
    """Whatever is not succeeded has an error, and nothing else."""

    custom_id: str
    status: Literal["errored", "canceled", "expired"]
    message: None
    usage: None
    error: Fault
    model: str


class Results(Shape):
    results: list[Annotated[SucceededLine | OtherLine, Field(discriminator="status")]]
    next_page: str | None


class Part(Shape):
    ok: bool


class EndpointPart(Part):
    id: str


class Health(Shape):
    ready: bool
    uptime_s: Annotated[float, Field(ge=0)]
    redis: Part
    storage: Part
    endpoints: dict[str, EndpointPart]


class Listing(Shape):
    batches: list[Batch]
    next_page: str | None


class Deleted(Shape):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: BatchId
    deleted: Literal[True]


class Figure(Shape):
    name: str
    labels: dict[str, str]
    value: float


class Metrics(Shape):
    metrics: Annotated[list[Figure], Field(min_length=1)]
    prometheus: str


class FaultOfField(Shape):
    type: str
    message: str
    param: str | None


class ErrorBody(Shape):
    type: Literal["error"]
    status_code: Annotated[int, Field(ge=400, le=599)]
    error: FaultOfField
    request_id: str


def check_shape(shape: type[Shape], value: Any) -> None:
    """Raises Unexpected that names the first field at fault."""
    try:
        shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        seen = f"{shown(first['input'])} ({first['msg']})"
        raise Unexpected(f"{shape.__name__.lower()} with {place} as documented", seen) from None
