"""Answers that were asked for as JSON, from the create to the results."""

import json
from typing import Any

import pytest

from shared.core.structured import Expectation, schema_format
from tests.client import BatchClient, OperationFailed, make_requests
from tests.flow.cloud import FACTS
from tests.flow.expected import assert_failed, counts, succeeded_line, watch, without_latency

LEAD = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 3}, "score": {"type": "integer", "minimum": 1}},
    "required": ["name", "score"],
    "additionalProperties": False,
}


def asking(count: int, schema: Any = LEAD, **params: Any) -> list[dict[str, Any]]:
    requests = make_requests(count)
    for request in requests:
        request["params"].update(response_format=schema_format(schema), **params)
    return requests


def mark(request: dict[str, Any], marker: str) -> None:
    request["params"]["messages"][0]["content"] += f" {marker}"


async def run(
    client: BatchClient, requests: list[dict[str, Any]], stage: str = "email"
) -> list[dict[str, Any]]:
    batch_id = (await client.call("create", stage=stage, requests=requests))["id"]
    await client.wait(batch_id)
    return await client.lines(batch_id)


def text_of(line: dict[str, Any]) -> str:
    assert line["status"] == "succeeded", line
    text: str = line["message"]["content"][0]["text"]
    return text


def check(line: dict[str, Any], schema: Any) -> None:
    wanted = Expectation.of({"response_format": schema_format(schema)})
    assert wanted is not None
    wanted.check(text_of(line))


async def test_every_answer_meets_the_schema_that_was_asked_for(client: BatchClient) -> None:
    requests = asking(60)
    for request in requests[::3]:
        request["metadata"] = {"model_hint": "llama-70b"}
    lines = await run(client, requests)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in requests]
    for line in lines:
        check(line, LEAD)
    assert {line["model"] for line in lines} == {"mistral", "llama-70b"}


async def test_what_fails_is_errored_alone_with_its_reason(client: BatchClient) -> None:
    requests = asking(12)
    mark(requests[2], "[[invalid]]")
    requests[5]["params"]["response_format"] = schema_format({"properties": {"n": {"type": "int"}}})
    requests[7]["params"]["max_tokens"] = 2
    mark(requests[9], "[[invalid]]")
    requests[9]["params"]["on_invalid"] = "retry"
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    last = (await watch(client, batch_id))[-1]
    assert last["counts"] == counts(12, 8, 4)
    assert last["lost_attempts"] == 0
    lines = await client.lines(batch_id)
    for number, (kind, told) in {
        2: ("model_error", "Output validation failed at $.name: "),
        5: ("invalid_request_error", "params.response_format.json_schema.schema at $.properties.n.type: "),
        7: ("model_error", "Output validation failed at $: the answer was cut at max_tokens=2"),
        9: ("model_error", "Output validation failed at $.name: "),
    }.items():
        line = lines[number]
        assert_failed(line, "errored", kind, "mistral")
        assert line["error"]["message"].startswith(told)
    for number in (0, 1, 3, 4, 6, 8, 10, 11):
        check(lines[number], LEAD)


async def test_a_retry_makes_good_what_was_invalid_once(client: BatchClient) -> None:
    requests = asking(6, on_invalid="retry")
    for request in requests:
        mark(request, "[[invalid-once]]")
    for line in await run(client, requests):
        check(line, LEAD)


async def test_a_stages_schema_holds_for_requests_without_a_format_of_their_own(client: BatchClient) -> None:
    requests = make_requests(5)
    requests[1]["params"]["response_format"] = schema_format(LEAD)
    requests[2]["params"]["response_format"] = {"type": "text"}
    mark(requests[3], "[[invalid]]")
    requests[4]["params"]["response_format"] = None
    lines = await run(client, requests, stage="facts")
    check(lines[0], FACTS)
    check(lines[4], FACTS)
    check(lines[1], LEAD)
    assert without_latency(lines[2]) == succeeded_line(requests[2], "llama-70b")
    assert_failed(lines[3], "errored", "model_error", "llama-70b")
    assert lines[3]["error"]["message"].startswith("Output validation failed at $.items[0].name: ")


async def test_any_json_object_may_be_asked_for(client: BatchClient) -> None:
    requests = make_requests(3)
    for request in requests:
        request["params"]["response_format"] = {"type": "json_object"}
    mark(requests[1], "[[invalid]]")
    lines = await run(client, requests)
    assert all(isinstance(json.loads(text_of(line)), dict) for line in (lines[0], lines[2]))
    assert lines[1]["error"]["message"] == "Output validation failed at $: must be an object"


async def test_a_format_of_the_wrong_shape_is_refused_at_the_create(client: BatchClient) -> None:
    requests = make_requests(2)
    requests[1]["params"]["response_format"] = {"type": "json_schema", "json_schema": {"name": "lead"}}
    with pytest.raises(OperationFailed) as caught:
        await client.call("create", stage="email", requests=requests)
    assert caught.value.status == 400
    assert caught.value.param == "requests[1].params.response_format.json_schema.schema"
