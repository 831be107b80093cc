"""What Anthropic's API answers, made from the answers of our own operations. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from shared.core.cards import ModelCard
from shared.errors import ServiceError

View = dict[str, Any]

# Our types that Anthropic's API does not have, as the nearest that it has.
_TYPES = {
    "invalid_request_error": "invalid_request_error",
    "batch_not_ended": "invalid_request_error",
    "conflict_error": "invalid_request_error",
    "not_found_error": "not_found_error",
    "request_too_large": "request_too_large",
    "overloaded_error": "overloaded_error",
    "timeout_error": "timeout_error",
}
_STATUS_CODES = {503: 529}


def batch_view(status: Mapping[str, Any], results_url: str) -> View:
    """A MessageBatch of a status object. Its counts are live, and always add up to the batch's total."""
    counts = status["counts"]
    ended = status["processing_status"] == "ended"
    canceling = status["cancel_requested_at"] is not None
    return {
        "id": status["id"],
        "type": "message_batch",
        "processing_status": "ended" if ended else "canceling" if canceling else "in_progress",
        "request_counts": {
            "processing": counts["pending"],
            "succeeded": counts["succeeded"],
            "errored": counts["errored"],
            "canceled": counts.get("canceled", 0),
            "expired": counts.get("expired", 0),
        },
        "created_at": status["created_at"],
        "expires_at": status["expires_at"],
        "ended_at": status["ended_at"],
        "archived_at": None,
        "cancel_initiated_at": status["cancel_requested_at"],
        "results_url": results_url if ended else None,
    }


def page_view(data: list[View], *, has_more: bool) -> View:
    return {
        "data": data,
        "has_more": has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def line_view(batch_id: str, line: Mapping[str, Any]) -> View:
    """A result line of our own dialect as one of Anthropic's."""
    return {"custom_id": line["custom_id"], "result": _result(batch_id, line)}


def _result(batch_id: str, line: Mapping[str, Any]) -> View:
    status = line["status"]
    if status == "succeeded":
        id_ = message_id(f"{batch_id}:{line['custom_id']}")
        return {"type": "succeeded", "message": message_view(id_, line, "batch")}
    if status == "errored":
        error = line["error"]
        # Anthropic's API names a field as its caller does, who sent no more than `params`.
        message = error["message"].removeprefix("params.")
        return {"type": "errored", "error": error_view(error["type"], message, None)}
    return {"type": status}


def message_id(seed: str) -> str:
    """The same for the same message, however often it is read."""
    return f"msg_{hashlib.sha256(seed.encode()).hexdigest()[:24]}"


def message_view(id_: str, answer: Mapping[str, Any], service_tier: str) -> View:
    """A Message of `{message, usage, model}`. Its model is the one that answered."""
    message, usage = answer["message"], answer["usage"]
    return {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": answer["model"],
        "content": message["content"],
        # Lines that an earlier version stored do not say why they end.
        "stop_reason": message.get("stop_reason", "end_turn"),
        "stop_sequence": message.get("stop_sequence"),
        "usage": {
            "input_tokens": usage["input_tokens"],
            "output_tokens": usage["output_tokens"],
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "service_tier": service_tier,
        },
    }


def model_view(card: ModelCard) -> View:
    return {
        "id": card.name,
        "type": "model",
        "display_name": card.repository,
        # When it was released is not known here; Anthropic's API says the epoch then.
        "created_at": "1970-01-01T00:00:00Z",
        "max_input_tokens": card.context_tokens,
        "max_tokens": card.context_tokens,
    }


def error_view(kind: str, message: str, request_id: str | None) -> View:
    error = {"type": _TYPES.get(kind, "api_error"), "message": message}
    return {"type": "error", "error": error, "request_id": request_id}


def status_code_of(error: ServiceError) -> int:
    return _STATUS_CODES.get(error.status_code, error.status_code)
