"""One error tree: every class has its type and status, and its text is what RunPod's error field carries."""

import json

import pytest

from shared import errors
from shared.errors import CallerError, ConfigError, EngineError, InvalidRequest, PlatformError, ServiceError

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ServiceError)
]


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("InvalidRequest", "invalid_request_error", 400),
        ("BatchNotEnded", "batch_not_ended", 400),
        ("NotFound", "not_found_error", 404),
        ("Conflict", "conflict_error", 409),
        ("TooLarge", "request_too_large", 413),
        ("StateUnavailable", "overloaded_error", 503),
        ("StorageUnavailable", "overloaded_error", 503),
        ("EndpointUnavailable", "overloaded_error", 503),
        ("EndpointTimeout", "timeout_error", 504),
        ("RequestRejected", "invalid_request_error", 400),
        ("OutputInvalid", "model_error", 500),
        ("EngineDead", "worker_error", 500),
        ("ServiceError", "api_error", 500),
    ],
)
def test_a_class_has_its_type_and_status(name: str, kind: str, status: int) -> None:
    error: type[ServiceError] = getattr(errors, name)
    assert (error.type, error.status_code) == (kind, status)


def test_only_what_may_pass_is_retryable() -> None:
    assert {error.__name__ for error in CLASSES if error.retryable} == {
        "PlatformError",
        "StateUnavailable",
        "StorageUnavailable",
        "EndpointUnavailable",
        "EndpointTimeout",
        "WorkerLeaving",
        "EngineBusy",
    }


def test_every_class_is_somebodys_fault() -> None:
    roots = (CallerError, PlatformError, EngineError, ConfigError)
    assert all(issubclass(error, roots) for error in CLASSES if error is not ServiceError)


def test_the_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__ is not None
    assert [error.__name__ for error in CLASSES if error.__name__ not in errors.__doc__] == []


def test_a_body_is_json_text_with_the_field_at_fault() -> None:
    body = json.loads(InvalidRequest("stage: é", param="stage").to_body("job-1"))
    assert body == {
        "type": "error",
        "status_code": 400,
        "error": {"type": "invalid_request_error", "message": "stage: é", "param": "stage"},
        "request_id": "job-1",
    }
    assert "param" not in json.loads(ServiceError("x").to_body())["error"]


def test_all_faults_of_the_settings_are_in_one_message() -> None:
    error = ConfigError(["A is required", "B must be a number"])
    assert str(error) == "Bad configuration:\n  - A is required\n  - B must be a number"
