"""A large create over HTTP: which operations its parts and its end become. The operations are stood in for."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from handlers.catalog import CARDS
from shared.anthropic.http import AnthropicApi
from shared.core.routing import DEFAULT_STAGES, Router
from shared.errors import Conflict
from tests.fakes import FakeJobs

BATCHES = "/v1/messages/batches"
MESSAGES = [{"role": "user", "content": "hi"}]
REQUEST = {"custom_id": "a", "params": {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": MESSAGES}}
STATUS = {
    "id": "batch_1",
    "processing_status": "collected",
    "counts": {"total": 1, "succeeded": 0, "errored": 0, "pending": 1},
    "created_at": "2026-01-01T00:00:00.000Z",
    "expires_at": "2026-01-02T00:00:00.000Z",
    "ended_at": None,
    "cancel_requested_at": None,
}


class Uploads:
    """Answers `upload`, `create` and `status`, and remembers what they were called with."""

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Any]] = []
        self.api = AnthropicApi(self._handle, Router(CARDS, DEFAULT_STAGES), FakeJobs(), {}, 10**6)

    async def _handle(self, payload: Mapping[str, Any], job: str | None) -> dict[str, Any]:
        self.calls.append(payload)
        if payload["operation"] == "upload":
            if payload["upload"] == "taken":
                raise Conflict("part: another body", param="part")
            return {
                "upload": payload["upload"],
                "part": payload["part"],
                "requests": len(payload["requests"]),
            }
        return {"id": "batch_1"} if payload["operation"] == "create" else STATUS

    async def send(self, method: str, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        call = {
            "operation": "http",
            "method": method,
            "path": path,
            "headers": named,
            "body": json.dumps(body),
        }
        answer = await self.api.handle(call, "job")
        return answer["status_code"], json.loads(answer["body"])


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


async def test_a_part_is_translated_and_handed_on_with_what_belongs_to_the_whole(uploads: Uploads) -> None:
    extras = {"x_batch_stage": "email", "x_batch_expires_in_s": "60", "x_batch_priority": "high"}
    answer = await uploads.send("PUT", f"{BATCHES}/uploads/my%2Fkey/3", {"requests": [REQUEST]}, **extras)
    assert answer == (200, {"upload": "my/key", "part": 3, "requests": 1})
    [call] = uploads.calls
    assert call == {
        "operation": "upload",
        "upload": "my/key",
        "part": 3,
        "requests": [{**REQUEST, "params": {"temperature": 1.0, **REQUEST["params"]}}],  # type: ignore[dict-item]
        "stage": "email",
        "expires_in_s": 60,
    }


async def test_a_create_by_reference_answers_with_the_batch(uploads: Uploads) -> None:
    reference = {"upload": {"key": "k", "parts": 4}}
    extras = {
        "idempotency_key": "once",
        "x_batch_stage": "email",
        "x_batch_priority": "high",
        "x_batch_callback_url": "https://example.com/hook",
    }
    status, batch = await uploads.send("POST", BATCHES, reference, **extras)
    assert (status, batch["id"]) == (200, "batch_1")
    assert uploads.calls[0] == {
        "operation": "create",
        "upload": "k",
        "parts": 4,
        "idempotency_key": "once",
        "stage": "email",
        "priority": "high",
        "callback_url": "https://example.com/hook",
    }


async def test_another_body_for_a_part_is_a_conflict(uploads: Uploads) -> None:
    status, body = await uploads.send("PUT", f"{BATCHES}/uploads/taken/0", {"requests": [REQUEST]})
    assert (status, body["error"]["type"]) == (409, "invalid_request_error")


@pytest.mark.parametrize("part", ["x", "-1", "1.5", ""])
async def test_a_part_is_a_number(uploads: Uploads, part: str) -> None:
    status, _ = await uploads.send("PUT", f"{BATCHES}/uploads/k/{part}", {"requests": [REQUEST]})
    assert status in (400, 404)
    assert not uploads.calls


async def test_a_reference_beside_requests_is_refused(uploads: Uploads) -> None:
    body = {"upload": {"key": "k", "parts": 1}, "requests": [REQUEST]}
    status, answer = await uploads.send("POST", BATCHES, body)
    assert (status, answer["error"]["message"]) == (400, "requests: unknown field")
