"""What a batch must look like from outside: its lines, its statuses, and how these may change."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

from shared.core.requests import DEFAULT_MAX_TOKENS
from shared.engines.simulated import answer, output_tokens, prompt_text
from tests.client import BatchClient

Line = dict[str, Any]

PHASES = ["collected", "submitted", "processing", "ended"]
OUTCOMES = {"succeeded", "errored", "canceled", "expired"}
STATUS_KEYS = {
    *("id", "processing_status", "counts", "settled", "stage", "priority", "models", "usage", "gpu_ms"),
    *(
        "attempts",
        "lost_attempts",
        "splits",
        "created_at",
        "updated_at",
        "expires_at",
        "ended_at",
        "cancel_requested_at",
        "retry_of",
        "callback",
    ),
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def model_of(request: Mapping[str, Any], otherwise: str) -> str:
    return str(request.get("metadata", {}).get("model_hint", otherwise))


def succeeded_line(request: Mapping[str, Any], model: str) -> Line:
    """The line of a request that the simulated engine answered, but for its latency."""
    params = {"max_tokens": DEFAULT_MAX_TOKENS, **request["params"]}
    tokens = output_tokens(params)
    return {
        "custom_id": request["custom_id"],
        "status": "succeeded",
        "message": {
            "content": [{"type": "text", "text": answer(params)}],
            "stop_reason": "max_tokens" if tokens == params["max_tokens"] else "end_turn",
            "stop_sequence": None,
        },
        "usage": {"input_tokens": max(1, len(prompt_text(params)) // 4), "output_tokens": tokens},
        "error": None,
        "model": model,
    }


def without_latency(line: Line) -> Line:
    """The line as it is the same in every run; its latency must be there and plausible."""
    rest = dict(line)
    latency_ms = rest.pop("latency_ms")
    assert isinstance(latency_ms, int)
    assert 0 <= latency_ms < 120_000
    return rest


def assert_all_succeeded(
    lines: Sequence[Line], requests: Sequence[Mapping[str, Any]], model: str = "mistral"
) -> None:
    """One line per request, in request order, each exactly as expected."""
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in requests]
    for line, request in zip(lines, requests, strict=True):
        assert without_latency(line) == succeeded_line(request, model_of(request, model))


def assert_failed(line: Line, status: str, kind: str, model: str) -> None:
    """A line without a message: its error is never null."""
    assert line.keys() - {"latency_ms"} == {"custom_id", "status", "message", "usage", "error", "model"}
    assert (line["status"], line["message"], line["usage"], line["model"]) == (status, None, None, model)
    assert line["error"].keys() == {"type", "message"}
    assert line["error"]["type"] == kind
    assert line["error"]["message"]


def counts(total: int, succeeded: int, errored: int = 0, **rare: int) -> dict[str, int]:
    """The counts of an ended batch."""
    return {"total": total, "succeeded": succeeded, "errored": errored, "pending": 0, **rare}


def lifetime_s(status: Mapping[str, Any]) -> float:
    """From the create to the expiry."""
    created, expires = (datetime.fromisoformat(status[name]) for name in ("created_at", "expires_at"))
    return (expires - created).total_seconds()


def assert_status_shape(status: Mapping[str, Any]) -> None:
    assert status.keys() == STATUS_KEYS
    live = status["counts"]
    rare = live.keys() - {"total", "succeeded", "errored", "pending"}
    assert live.keys() >= {"total", "succeeded", "errored", "pending"}
    assert rare <= {"canceled", "expired"}
    assert all(live[name] > 0 for name in rare), "canceled and expired stand there only where they are not 0"
    assert min(live.values()) >= 0
    assert sum(live.values()) == 2 * live["total"], "the counts add up to the total"
    assert status["settled"].keys() == OUTCOMES
    for name in ("created_at", "updated_at", "expires_at"):
        assert TIME.fullmatch(status[name]), name
    assert sum(status["models"].values()) == live["total"]


def assert_follows(status: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Words and settled counts never go back; what was fixed at the create stays."""
    assert PHASES.index(status["processing_status"]) >= PHASES.index(before["processing_status"])
    for name, settled in before["settled"].items():
        assert status["settled"][name] >= settled, name
    assert datetime.fromisoformat(status["updated_at"]) >= datetime.fromisoformat(before["updated_at"])
    fixed = ("id", "stage", "priority", "models", "created_at", "expires_at", "retry_of")
    assert [status[name] for name in fixed] == [before[name] for name in fixed]
    assert status["counts"]["total"] == before["counts"]["total"]


async def watch(
    client: BatchClient, batch_id: str, *, poll_s: float = 0.02, timeout_s: float = 60.0
) -> list[dict[str, Any]]:
    """All statuses up to the end, each checked by itself and against the one before."""
    statuses: list[dict[str, Any]] = []
    end_s = monotonic() + timeout_s
    while not statuses or statuses[-1]["processing_status"] != "ended":
        assert monotonic() < end_s, f"not ended within {timeout_s:g} s: {statuses[-1]}"
        status = await client.call("status", id=batch_id)
        assert_status_shape(status)
        if statuses:
            assert_follows(status, statuses[-1])
        statuses.append(status)
        await asyncio.sleep(poll_s)
    last = statuses[-1]
    assert last["counts"]["pending"] == 0
    assert all(last["counts"].get(name, 0) == settled for name, settled in last["settled"].items())
    assert TIME.fullmatch(last["ended_at"])
    return statuses
