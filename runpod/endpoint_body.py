"""The body of RunPod's `POST /v2/serverless`, as far as this service uses it, with the limits that RunPod documents
(https://docs.runpod.io/api-reference-v2). What this model accepts is sent; what RunPod would refuse ends here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from failures import RefusedValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

# Shorter or longer, and jobs could not run at all (RunPod's bounds of an execution timeout).
TIMEOUT_MIN_MS = 5_000
TIMEOUT_MAX_MS = 7 * 24 * 3600 * 1000


class Part(BaseModel):
    """Names are RunPod's in JSON (camelCase); an unknown one is refused, as RunPod does."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True, strict=True
    )


class Gpu(Part):
    """`pools`: what workers may run on, less `excluded_types`; `count`: GPUs of one worker."""

    pools: list[str] = Field(min_length=1)
    count: int = Field(1, ge=1)
    excluded_types: list[str] = []


class Cpu(Part):
    id: str = Field(min_length=1)
    vcpu_count: int = Field(ge=2)

    @field_validator("vcpu_count")
    @classmethod
    def _is_a_power_of_two(cls, count: int) -> int:
        if count & (count - 1):
            raise ValueError("must be a power of two")
        return count


class Workers(Part):
    min: int = Field(ge=0)
    max: int = Field(ge=0)
    idle_timeout: int | None = Field(None, ge=1, le=3600)

    @model_validator(mode="after")
    def _are_in_order(self) -> Workers:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not be above max ({self.max})")
        return self


class QueueDelay(Part):
    """Another worker starts when a job waits longer than `queue_delay` seconds."""

    type: Literal["QUEUE_DELAY"]
    queue_delay: float = Field(ge=0.5)


class RequestCount(Part):
    type: Literal["REQUEST_COUNT"]
    request_count: int = Field(ge=1)


class EndpointBody(Part):
    """One queue endpoint. `timeout` is the execution timeout in ms, `disk` the container's disk in GB,
    `registry` the id of the credentials for a private one."""

    name: str = Field(min_length=1)
    type: Literal["QUEUE"]
    image: str = Field(min_length=1)
    registry: str | None = None
    gpu: Gpu | None = None
    cpu: list[Cpu] | None = Field(None, min_length=1)
    workers: Workers
    scaling: Annotated[QueueDelay | RequestCount, Field(discriminator="type")]
    timeout: int = Field(ge=TIMEOUT_MIN_MS, le=TIMEOUT_MAX_MS)
    flashboot: Literal["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"]
    disk: int = Field(ge=1)
    env: dict[str, str]
    network_volumes: list[str] = []
    data_center_ids: list[str] = []

    @model_validator(mode="after")
    def _fits_together(self) -> EndpointBody:
        if (self.gpu is None) == (self.cpu is None):
            raise ValueError("exactly one of gpu and cpu must be given")
        if self.scaling.type == "REQUEST_COUNT" and self.workers.idle_timeout is not None:
            raise ValueError("workers.idleTimeout does not go with scaling REQUEST_COUNT")
        return self

    def request(self) -> dict[str, Any]:
        """The JSON object that RunPod takes."""
        return self.model_dump(by_alias=True, exclude_none=True)


def checked_body(title: str, fields: dict[str, Any]) -> EndpointBody:
    """The body made of `fields` (RunPod's names). Raises RefusedValue with every fault; `title` says whose."""
    try:
        return EndpointBody.model_validate(fields)
    except ValidationError as error:
        raise RefusedValue("\n".join(f"{title}: {fault}" for fault in _faults(error))) from None


def _faults(error: ValidationError) -> list[str]:
    faults = []
    for fault in error.errors(include_url=False):
        # A union's tag is no field of the body.
        path = ".".join(str(part) for part in fault["loc"] if part not in ("QUEUE_DELAY", "REQUEST_COUNT"))
        shown = fault["input"] if not path.startswith("env") else None
        given = f" (it is {shown!r})" if isinstance(shown, int | float | str) else ""
        faults.append(f"{path + ': ' if path else ''}{fault['msg'].removeprefix('Value error, ')}{given}")
    return faults
