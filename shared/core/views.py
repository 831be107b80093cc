"""Stored records as a caller sees them: the status object and result lines of our own dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from shared.core.addresses import host_of
from shared.core.shards import BatchRecord, CallbackRecord
from shared.core.tools import ToolCall

ABSENT_MESSAGES = {
    "canceled": "The batch was canceled before this request ran",
    "expired": "The batch expired before this request ran",
}


def iso(ms: int | None) -> str | None:
    """Redis milliseconds as ISO 8601 in UTC."""
    if ms is None:
        return None
    stamp = datetime.fromtimestamp(ms / 1000, tz=timezone.utc)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status_view(batch: BatchRecord) -> dict[str, Any]:
    """The status object. `counts` are live and add up to `total`; `settled` never go back. `canceled` and `expired`
    stand in `counts` only where they are not 0."""
    counts = {"total": batch.total}
    for name in ("succeeded", "errored"):
        counts[name] = batch.settled[name] + batch.live[name]
    rare = {name: batch.settled[name] for name in ("canceled", "expired") if batch.settled[name]}
    counts["pending"] = batch.total - counts["succeeded"] - counts["errored"] - sum(rare.values())
    return {
        "id": batch.id,
        "processing_status": batch.phase.value,
        "counts": {**counts, **rare},
        "settled": dict(batch.settled),
        "stage": batch.stage or None,
        "priority": batch.priority,
        "models": dict(batch.models),
        "usage": {"input_tokens": batch.input_tokens, "output_tokens": batch.output_tokens},
        "gpu_ms": batch.gpu_ms,
        "attempts": batch.attempts,
        "lost_attempts": batch.deaths,
        "splits": batch.splits,
        "created_at": iso(batch.created_ms),
        "updated_at": iso(batch.updated_ms),
        "expires_at": iso(batch.expires_ms),
        "ended_at": iso(batch.ended_ms),
        "cancel_requested_at": iso(batch.stop_ms) if batch.stop == "canceled" else None,
        "retry_of": batch.retry_of or None,
        "callback": _callback_view(batch.callback) if batch.callback else None,
    }


def _callback_view(callback: CallbackRecord) -> dict[str, Any]:
    """Of its URL the host alone: the rest may hold a token."""
    return {
        "host": host_of(callback.url),
        "state": callback.state,
        "attempts": callback.attempts,
        "error": callback.fault or None,
    }


def message_view(
    text: str, calls: Sequence[ToolCall] = (), stop_reason: str = "end_turn", stop_sequence: str | None = None
) -> dict[str, Any]:
    """An answer as blocks: its text, which may be empty, and its calls; beside calls a text only where there is one."""
    said = [{"type": "text", "text": text}] if text or not calls else []
    used = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.input)} for call in calls
    ]
    return {"content": [*said, *used], "stop_reason": stop_reason, "stop_sequence": stop_sequence}


def usage_view(input_tokens: int, output_tokens: int) -> dict[str, int]:
    return {"input_tokens": input_tokens, "output_tokens": output_tokens}


def succeeded_line(
    custom_id: str,
    model: str,
    message: str | Mapping[str, Any],
    input_tokens: int,
    output_tokens: int,
) -> dict[str, Any]:
    """`message` as `message_view` makes it; for a plain text it is made here."""
    return {
        "custom_id": custom_id,
        "status": "succeeded",
        "message": message_view(message) if isinstance(message, str) else message,
        "usage": usage_view(input_tokens, output_tokens),
        "error": None,
        "model": model,
    }


def failed_line(custom_id: str, model: str, status: str, kind: str, message: str) -> dict[str, Any]:
    """A line without a message: `status` is errored, canceled or expired, and `error` is never null."""
    return {
        "custom_id": custom_id,
        "status": status,
        "message": None,
        "usage": None,
        "error": {"type": kind, "message": message},
        "model": model,
    }


def absent_line(custom_id: str, model: str, outcome: str, message: str) -> dict[str, Any]:
    """The line of a request whose shard was settled without an output."""
    kind = "worker_error" if outcome == "errored" else outcome
    return failed_line(
        custom_id, model, outcome, kind, message or ABSENT_MESSAGES.get(outcome, "The worker was lost")
    )
