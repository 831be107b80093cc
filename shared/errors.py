"""The one error tree. Grouped by whose fault it is, because that decides what a caller can do.

ServiceError
├── CallerError            the caller must change something; never retried
│   ├── InvalidRequest     400 invalid_request_error
│   ├── BatchNotEnded      400 batch_not_ended
│   ├── NotFound           404 not_found_error
│   ├── Conflict           409 conflict_error
│   └── TooLarge           413 request_too_large
├── PlatformError          something we stand on failed; the same call may work later
│   ├── StateUnavailable   503 Redis did not answer, or answered nonsense
│   ├── StorageUnavailable 503 the object store did not answer
│   ├── EndpointUnavailable 503 a RunPod endpoint refused or did not answer
│   ├── EndpointTimeout    504 timeout_error
│   └── WorkerLeaving      503 this worker ends; another one runs what it had in hand
├── EngineError            one request failed inside a model engine
│   ├── RequestRejected    the request itself can't run; never retried
│   ├── OutputInvalid      the answer is not what response_format asks for
│   ├── EngineBusy         a passing fault; retried a few times
│   └── EngineDead         the engine is gone; the shard runs elsewhere
└── ConfigError            the settings are wrong; raised once, at start, with every fault
"""

from __future__ import annotations

import json
from typing import ClassVar


class ServiceError(Exception):
    """Root of every error this product raises on purpose.

    `type` and `status_code` are what the caller sees; `param` names the field at fault, such as
    `requests[3].custom_id`.
    """

    type: ClassVar[str] = "api_error"
    status_code: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def to_body(self, request_id: str | None = None) -> str:
        """The error as the JSON text that RunPod's `error` field carries (it must be a string)."""
        error: dict[str, str] = {"type": self.type, "message": self.message}
        if self.param is not None:
            error["param"] = self.param
        body = {"type": "error", "status_code": self.status_code, "error": error, "request_id": request_id}
        return json.dumps(body)


class CallerError(ServiceError):
    """The caller's fault: sending the same again gives the same answer."""

    status_code = 400


class InvalidRequest(CallerError):
    type = "invalid_request_error"


class BatchNotEnded(CallerError):
    type = "batch_not_ended"


class NotFound(CallerError):
    type = "not_found_error"
    status_code = 404


class Conflict(CallerError):
    type = "conflict_error"
    status_code = 409


class TooLarge(CallerError):
    type = "request_too_large"
    status_code = 413


class PlatformError(ServiceError):
    """A platform's fault: nothing is wrong with the call, and a later one may work."""

    type = "overloaded_error"
    status_code = 503
    retryable = True


class StateUnavailable(PlatformError):
    pass


class StorageUnavailable(PlatformError):
    pass


class EndpointUnavailable(PlatformError):
    """A RunPod endpoint refused a call or gave no usable answer.

    `retry_after_s` is the endpoint's own wish, None where it named none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EndpointTimeout(PlatformError):
    """A job was not over in time."""

    type = "timeout_error"
    status_code = 504


class WorkerLeaving(PlatformError):
    pass


class EngineError(ServiceError):
    """One request failed in the engine. `type` is what its result line carries."""


class RequestRejected(EngineError):
    type = "invalid_request_error"
    status_code = 400


class OutputInvalid(EngineError):
    type = "model_error"


class EngineBusy(EngineError):
    retryable = True


class EngineDead(EngineError):
    type = "worker_error"


class ConfigError(ServiceError):
    """Every fault of the settings in one message, one line each; secrets never appear in it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("Bad configuration:\n" + "\n".join(f"  - {fault}" for fault in faults))
        self.faults = faults
