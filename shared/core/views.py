"""Stored records as a caller sees them: the status object and result lines of our own dialect."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from shared.core.shards import BatchRecord

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
    }


def succeeded_line(
    custom_id: str, model: str, text: str, input_tokens: int, output_tokens: int
) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "status": "succeeded",
        "message": {"content": [{"type": "text", "text": text}]},
        "usage": {"input_tokens": input_tokens, "output_tokens": output_tokens},
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
