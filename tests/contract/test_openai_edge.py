"""What the local RunPod's /openai route makes of a failed job."""

import json
from typing import Any

import pytest
from aiohttp import web

from tests.local_cloud.queue.job import Job, JobState, Submission
from tests.local_cloud.queue.openai_api import _failure

OPENAI = {"error": {"message": "no", "type": "NotFoundError", "param": None, "code": 404}}
OURS = {"type": "error", "status_code": 400, "error": {"type": "invalid_request_error", "message": "no"}}


def failed(text: str | None) -> tuple[int, Any]:
    job = Job("sync-1", Submission({}), True, 0.0, JobState.FAILED)
    if text is not None:
        job.result = {"error": text}
    answer = _failure(job)
    assert isinstance(answer, web.Response)
    assert answer.text is not None
    return answer.status, json.loads(answer.text)


@pytest.mark.parametrize(("body", "status"), [(OPENAI, 404), (OURS, 400)], ids=["openai", "ours"])
def test_an_error_body_is_the_reply_with_its_own_status(body: dict[str, Any], status: int) -> None:
    assert failed(json.dumps(body)) == (status, body)


@pytest.mark.parametrize("code", [None, "model_not_found", 200, 700])
def test_an_error_body_without_a_status_is_a_500(code: object) -> None:
    body = {"error": {"message": "no", "code": code}}
    assert failed(json.dumps(body)) == (500, body)


@pytest.mark.parametrize("text", ["job timed out after 1 retries", "[1]", '{"error": "text"}', "5"])
def test_any_other_error_is_a_500_with_its_text_as_the_message(text: str) -> None:
    assert failed(text) == (500, {"error": {"message": text}})


def test_a_job_that_ended_without_a_word_says_its_state() -> None:
    assert failed(None) == (500, {"error": {"message": "FAILED"}})
