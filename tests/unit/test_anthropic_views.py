"""What Anthropic's API answers, made of our own answers."""

import json
from typing import Any

import pytest

from shared.anthropic.views import batch_view, error_view, line_view, page_view, status_code_of
from shared.core.views import absent_line, failed_line, succeeded_line
from shared.errors import Conflict, EndpointTimeout, NotFound, ServiceError, StateUnavailable, TooLarge

URL = "https://api.anthropic.com/v1/messages/batches/b/results"
STATUS: dict[str, Any] = {
    "id": "batch_1",
    "processing_status": "processing",
    "counts": {"total": 10, "succeeded": 3, "errored": 1, "pending": 6},
    "created_at": "2026-01-01T00:00:00.000Z",
    "expires_at": "2026-01-02T00:00:00.000Z",
    "ended_at": None,
    "cancel_requested_at": None,
}
# What the official SDKs know as the type of an error.
TYPES = {
    "invalid_request_error",
    "not_found_error",
    "request_too_large",
    "overloaded_error",
    "timeout_error",
    "api_error",
}


def test_a_batch_in_progress_shows_live_counts_and_no_results() -> None:
    view = batch_view(STATUS, URL)
    assert view == {
        "id": "batch_1",
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {"processing": 6, "succeeded": 3, "errored": 1, "canceled": 0, "expired": 0},
        "created_at": STATUS["created_at"],
        "expires_at": STATUS["expires_at"],
        "ended_at": None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }
    assert sum(view["request_counts"].values()) == STATUS["counts"]["total"]


@pytest.mark.parametrize("phase", ["collected", "submitted", "processing"])
def test_a_canceled_batch_is_canceling_until_it_ends(phase: str) -> None:
    canceled = {**STATUS, "processing_status": phase, "cancel_requested_at": "2026-01-01T01:00:00.000Z"}
    assert batch_view(canceled, URL)["processing_status"] == "canceling"
    ended = batch_view({**canceled, "processing_status": "ended"}, URL)
    assert (ended["processing_status"], ended["results_url"]) == ("ended", URL)
    assert ended["cancel_initiated_at"] == canceled["cancel_requested_at"]


def test_a_page_names_its_first_and_last() -> None:
    assert page_view([{"id": "a"}, {"id": "b"}], has_more=True) == {
        "data": [{"id": "a"}, {"id": "b"}],
        "has_more": True,
        "first_id": "a",
        "last_id": "b",
    }
    assert page_view([], has_more=False) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_a_message_is_anthropics_and_its_id_is_always_the_same() -> None:
    line = succeeded_line("lead-1", "mistral", "Hello", 7, 3)
    result = line_view("batch_1", line)["result"]
    message = result["message"]
    assert result["type"] == "succeeded"
    assert message == line_view("batch_1", line)["result"]["message"]
    assert message["id"] != line_view("batch_2", line)["result"]["message"]["id"]
    assert message["id"].startswith("msg_")
    assert {name: message[name] for name in ("type", "role", "model", "content", "stop_reason")} == {
        "type": "message",
        "role": "assistant",
        "model": "mistral",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
    }
    assert message["stop_sequence"] is None
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (7, 3)


def test_a_line_that_an_earlier_version_stored_is_a_message_too() -> None:
    line = succeeded_line("lead-1", "mistral", "Hello", 7, 3)
    line["message"] = {"content": line["message"]["content"]}
    assert line_view("batch_1", line)["result"]["message"]["stop_reason"] == "end_turn"


@pytest.mark.parametrize("outcome", ["canceled", "expired"])
def test_what_did_not_run_has_its_type_alone(outcome: str) -> None:
    line = absent_line("lead-1", "mistral", outcome, "")
    assert line_view("batch_1", line) == {"custom_id": "lead-1", "result": {"type": outcome}}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("invalid_request_error", "invalid_request_error"),
        ("not_found_error", "not_found_error"),
        ("overloaded_error", "overloaded_error"),
        ("worker_error", "api_error"),
        ("model_error", "api_error"),
        ("api_error", "api_error"),
        ("anything", "api_error"),
    ],
)
def test_an_errored_line_has_a_type_that_the_sdks_know(ours: str, theirs: str) -> None:
    result = line_view("batch_1", failed_line("lead-1", "mistral", "errored", ours, "params.x: bad"))[
        "result"
    ]
    assert result == {
        "type": "errored",
        "error": {"type": "error", "error": {"type": theirs, "message": "x: bad"}, "request_id": None},
    }


@pytest.mark.parametrize("kind", ServiceError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_error_of_ours_has_a_type_that_the_sdks_know(kind: type[ServiceError]) -> None:
    for error in (kind, *kind.__subclasses__()):
        assert error_view(error.type, "m", "r")["error"]["type"] in TYPES


@pytest.mark.parametrize(
    ("error", "status_code"),
    [
        (NotFound("x"), 404),
        (Conflict("x"), 409),
        (TooLarge("x"), 413),
        (ServiceError("x"), 500),
        (EndpointTimeout("x"), 504),
        (StateUnavailable("x"), 529),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ServiceError) else None,
)
def test_an_error_has_anthropics_status_code(error: ServiceError, status_code: int) -> None:
    assert status_code_of(error) == status_code


def test_a_page_of_results_fits_into_an_answer_of_runpods_wherever_ours_does() -> None:
    """RunPod takes outputs of 20 MB, and a page of ours has 8 MB of lines: theirs may take twice that, in JSON text."""
    short = succeeded_line("a", "mistral", "", 1, 1)
    quotes = succeeded_line("a", "mistral", '"\\' * 10_000, 1, 1)
    for line in (short, quotes):
        body = json.dumps(line_view("batch_1", line), ensure_ascii=False, separators=(",", ":"))
        assert len(json.dumps(f"{body}\n")) <= 2.25 * len(json.dumps(line))
