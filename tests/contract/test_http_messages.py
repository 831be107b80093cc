"""One message and the models, as Anthropic's API has them: through the model's endpoint, which is stood in for."""

import json
from typing import Any

import pytest

from shared.errors import (
    EndpointTimeout,
    EndpointUnavailable,
    EngineBusy,
    EngineDead,
    InvalidRequest,
    OutputInvalid,
    RequestRejected,
    ServiceError,
    WorkerLeaving,
)
from shared.ports.jobs import JobAnswer
from tests.contract.service import Service

PARAMS = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hi"}],
}
OUTPUT = {
    "message": {
        "content": [
            {"type": "tool_use", "id": f"toolu_{0:024x}", "name": "look_up", "input": {"name": "Ada"}}
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
    },
    "usage": {"input_tokens": 7, "output_tokens": 3},
    "model": "llama-70b",
}


async def send(service: Service, method: str, path: str, body: Any = None) -> tuple[int, Any, dict[str, str]]:
    call = {"operation": "http", "method": method, "path": path, "body": json.dumps(body)}
    answer = await service.operations.handle(call, "job-1")
    return answer["status_code"], json.loads(answer["body"]), answer["headers"]


async def ask(service: Service, **changes: Any) -> tuple[int, Any, dict[str, str]]:
    params = {name: value for name, value in {**PARAMS, **changes}.items() if value is not None}
    return await send(service, "POST", "/v1/messages", params)


@pytest.mark.parametrize("output", [OUTPUT, [OUTPUT]], ids=["object", "chunks"])
async def test_a_message_goes_to_its_models_endpoint_and_comes_back_whole(
    service: Service, output: Any
) -> None:
    service.jobs.answers.append(JobAnswer(output=output))
    status, message, headers = await ask(service, metadata={"user_id": "u"}, service_tier="auto")
    [(endpoint, job_input)] = service.jobs.called
    assert endpoint.model == "llama-70b"
    assert job_input == {"message": {"params": {"temperature": 1.0, **PARAMS}}}
    assert (status, headers["request-id"]) == (200, "job-1")
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "llama-70b",
        **OUTPUT["message"],  # type: ignore[dict-item]
        "usage": {
            **OUTPUT["usage"],  # type: ignore[dict-item]
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "service_tier": "standard",
        },
    }


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"stream": True}, 400, "stream: "),
        ({"max_tokens": None}, 400, "max_tokens: required field is missing"),
        ({"model": "gpt-4"}, 404, "model: unknown model"),
        ({"messages": [{"role": "user", "content": "x" * 2**20}]}, 400, "messages: at most "),
        ({"system": "\ud800"}, 400, "system: must be valid Unicode text"),
        ({"\ud800": 1}, 400, "?: unknown field"),
    ],
    ids=["stream", "no max_tokens", "model", "long", "surrogate", "surrogate name"],
)
async def test_a_fault_is_refused_without_a_job(
    service: Service, changes: dict[str, Any], status: int, message: str
) -> None:
    got, body, _ = await ask(service, **changes)
    assert got == status
    assert body["error"]["message"].startswith(message)
    assert not service.jobs.called


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (RequestRejected("messages[0].content[0]: image blocks"), 400, "invalid_request_error"),
        (InvalidRequest("message.params.max_tokens: too many"), 400, "invalid_request_error"),
        (OutputInvalid("not what was asked for"), 500, "api_error"),
        (EngineBusy("busy"), 500, "api_error"),
        (EngineDead("dead"), 500, "api_error"),
        (WorkerLeaving("leaving"), 529, "overloaded_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ServiceError) else None,
)
async def test_what_a_worker_reports_is_answered_in_anthropics_words(
    service: Service, error: ServiceError, status: int, kind: str
) -> None:
    service.jobs.answers.append(JobAnswer(error=error.to_body("job-2")))
    got, body, _ = await ask(service)
    assert (got, body["error"]["type"], body["request_id"]) == (status, kind, "job-1")
    assert body["error"]["message"] in error.message


@pytest.mark.parametrize(
    "answer",
    [
        JobAnswer(error="CUDA out of memory: SECRET"),
        JobAnswer(error='{"status_code": 400}'),
        JobAnswer(output=None),
        JobAnswer(output=[]),
        JobAnswer(output={"choices": []}),
    ],
    ids=["text", "half an error", "nothing", "no chunks", "another output"],
)
async def test_whatever_is_no_message_is_a_fault_of_ours(service: Service, answer: JobAnswer) -> None:
    service.jobs.answers.append(answer)
    status, body, _ = await ask(service)
    assert (status, body["error"]["type"]) == (500, "api_error")
    assert "SECRET" not in body["error"]["message"]


async def test_an_endpoint_that_refuses_is_overloaded_and_says_when_to_come_back(service: Service) -> None:
    service.jobs.answers.append(EndpointUnavailable("429", retry_after_s=7.0))
    status, body, headers = await ask(service)
    assert (status, body["error"]["type"], headers["retry-after"]) == (529, "overloaded_error", "7")


async def test_an_endpoint_that_is_too_slow_is_a_timeout(service: Service) -> None:
    service.jobs.answers.append(EndpointTimeout("slow"))
    status, body, _ = await ask(service)
    assert (status, body["error"]["type"]) == (504, "timeout_error")


async def test_the_models_are_those_that_are_served(service: Service) -> None:
    status, page, _ = await send(service, "GET", "/v1/models")
    assert status == 200
    assert [model["id"] for model in page["data"]] == ["mistral", "llama-70b"]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "mistral", "llama-70b")
    assert page["data"][0]["type"] == "model"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("mistral", "mistral"),
        ("claude-opus-4-1", "llama-70b"),
        ("mistralai%2FMistral-7B-Instruct-v0.3", "mistral"),
    ],
)
async def test_a_model_is_found_by_every_name_that_a_request_may_use(
    service: Service, name: str, model: str
) -> None:
    status, body, _ = await send(service, "GET", f"/v1/models/{name}")
    assert (status, body["id"]) == (200, model)


async def test_an_unknown_model_is_not_found(service: Service) -> None:
    status, body, _ = await send(service, "GET", "/v1/models/gpt-4")
    assert (status, body["error"]["type"]) == (404, "not_found_error")
