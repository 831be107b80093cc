"""Blocks, tools and single messages through the local cloud."""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from shared.core.structured import Expectation, schema_format
from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud
from tests.flow.expected import assert_all_succeeded, assert_failed, counts, watch

WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "minLength": 2}, "days": {"$ref": "#/$defs/days"}},
        "required": ["city", "days"],
        "$defs": {"days": {"type": "integer", "minimum": 1}},
    },
}
STOCK = {"name": "get_stock", "input_schema": {"type": "object", "properties": {"sku": {"type": "string"}}}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def request(number: int, content: Any, **params: Any) -> dict[str, Any]:
    return {"custom_id": f"lead_{number}", "params": {"messages": [user(content)], **params}}


async def run(client: BatchClient, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    await client.wait(batch_id)
    return await client.lines(batch_id)


def calls_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    assert message["stop_reason"] == "tool_use"
    return [block for block in message["content"] if block["type"] == "tool_use"]


def assert_fits(call: Mapping[str, Any], tool: Mapping[str, Any]) -> None:
    assert call["name"] == tool["name"]
    assert call["id"].startswith("toolu_")
    wanted = Expectation.of({"response_format": schema_format(tool["input_schema"])})
    assert wanted is not None
    wanted.check(json.dumps(call["input"]))


async def test_what_a_model_cannot_read_is_errored_alone_beside_tools_and_blocks(client: BatchClient) -> None:
    requests = [
        request(0, [text("Write to lead 0."), text("Be brief.")]),
        request(1, [text("What is this?"), {"type": "image", "source": {"type": "url", "url": "x"}}]),
        request(2, "Whatever.", tools=[WEATHER, STOCK], tool_choice={"type": "any"}),
        request(3, "Whatever.", tools=[WEATHER, STOCK], tool_choice={"type": "tool", "name": "get_stock"}),
        request(4, [text("Use get_weather.")], tools=[STOCK, WEATHER]),
        request(5, "Use get_weather.", tools=[WEATHER], tool_choice={"type": "none"}),
        request(6, "Search.", tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        request(7, "Whatever.", tools=[WEATHER], tool_choice={"type": "tool", "name": "get_time"}),
        request(8, "Think.", thinking={"type": "enabled", "budget_tokens": 1024}),
        request(9, "Don't think.", thinking={"type": "disabled"}, system=[text("You write.")]),
    ]
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    last = (await watch(client, batch_id))[-1]
    assert last["counts"] == counts(10, 6, 4)
    lines = await client.lines(batch_id)
    for number in (0, 5, 9):
        message = lines[number]["message"]
        assert message["stop_reason"] == "end_turn"
        assert [block["type"] for block in message["content"]] == ["text"]
    for number, tool in {2: WEATHER, 3: STOCK, 4: WEATHER}.items():
        [call] = calls_of(lines[number]["message"])
        assert lines[number]["message"]["content"] == [call]
        assert_fits(call, tool)
    for number, told in {
        1: "messages[0].content[1]: image blocks are not supported; the model reads text only",
        6: "tools[0]: web_search_20250305 tools are not supported; only tools that the caller runs are",
        7: "tool_choice.name: no tool of the name 'get_time'; tools: get_weather",
        8: 'params.thinking: not supported by this model, except {"type": "disabled"}',
    }.items():
        assert_failed(lines[number], "errored", "invalid_request_error", "mistral")
        assert lines[number]["error"]["message"] == told


async def test_a_call_its_result_and_the_answer_to_it(client: BatchClient) -> None:
    offered = {"tools": [WEATHER, STOCK]}
    asked = user("I need get_weather and get_stock.")
    [line] = await run(client, [{"custom_id": "a", "params": {"messages": [asked], **offered}}])
    calls = calls_of(line["message"])
    assert [call["name"] for call in calls] == ["get_weather", "get_stock"]
    assert calls[0]["id"] != calls[1]["id"]
    said = {"role": "assistant", "content": line["message"]["content"]}
    results = [
        {"type": "tool_result", "tool_use_id": calls[0]["id"], "content": [text("12 degrees")]},
        {"type": "tool_result", "tool_use_id": calls[1]["id"], "content": "no such item", "is_error": True},
    ]
    answered, unanswered, unknown = await run(
        client,
        [
            {"custom_id": "b", "params": {"messages": [asked, said, user(results)], **offered}},
            {"custom_id": "c", "params": {"messages": [asked, said, user(results[:1])], **offered}},
            {"custom_id": "d", "params": {"messages": [asked, user([*results])], **offered}},
        ],
    )
    assert answered["message"]["stop_reason"] == "end_turn"
    assert answered["message"]["content"][0]["text"]
    assert answered["usage"]["input_tokens"] > line["usage"]["input_tokens"]
    for failed in (unanswered, unknown):
        assert_failed(failed, "errored", "invalid_request_error", "mistral")
    assert unanswered["error"]["message"].startswith("messages[2]: tool_use ")
    assert unknown["error"]["message"].startswith("messages[1].content[0]")


async def test_a_request_with_a_refusal_is_that_error_and_no_engine_sees_it(client: BatchClient) -> None:
    requests = make_requests(5)
    fatal = "[[dead]]"
    requests[2]["params"]["messages"] = [user(fatal)]
    requests[2]["refusal"] = {"type": "invalid_request_error", "message": "max_tokens: Field required"}
    lines = await run(client, requests)
    refused = lines.pop(2)
    assert_failed(refused, "errored", "invalid_request_error", "mistral")
    assert refused["error"]["message"] == "max_tokens: Field required"
    assert_all_succeeded(lines, [request for n, request in enumerate(requests) if n != 2])


class Endpoint:
    """A model endpoint, asked as a backend would."""

    def __init__(self, cloud: FlowCloud, session: aiohttp.ClientSession) -> None:
        self._url = cloud.worker_env["MISTRAL_BASE_URL"]
        self._key = cloud.address["api_key"]
        self._session = session

    async def ask(self, **params: Any) -> dict[str, Any]:
        body = {"input": {"message": {"params": params}}}
        headers = {"Authorization": f"Bearer {self._key}"}
        url = f"{self._url}/runsync?wait=60000"
        async with self._session.post(url, json=body, headers=headers) as answer:
            job: dict[str, Any] = await answer.json()
            return job


async def test_one_message_is_answered_at_once_by_the_model_endpoint(cloud: FlowCloud) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as session:
        endpoint = Endpoint(cloud, session)
        job = await endpoint.ask(messages=[user([text("Hello.")])], system=[text("Be brief.")])
        assert job["status"] == "COMPLETED"
        [answer] = job["output"]
        assert answer["model"] == "mistral"
        assert answer["message"]["stop_reason"] == "end_turn"
        assert answer["usage"]["output_tokens"] == len(answer["message"]["content"][0]["text"].split())
        job = await endpoint.ask(messages=[user("Hi.")], tools=[WEATHER], tool_choice={"type": "any"})
        [call] = calls_of(job["output"][0]["message"])
        assert_fits(call, WEATHER)


@pytest.mark.parametrize(
    ("params", "status", "param"),
    [
        ({"messages": [user([{"type": "document", "source": {}}])]}, 400, "messages[0].content[0]"),
        ({"messages": []}, 400, "message.params.messages"),
        ({"messages": [user("Hi. [[busy]]")]}, 500, None),
    ],
    ids=["block", "shape", "busy"],
)
async def test_one_message_that_cannot_be_answered_fails_with_our_error(
    cloud: FlowCloud, params: dict[str, Any], status: int, param: str | None
) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as session:
        job = await Endpoint(cloud, session).ask(**params)
    assert job["status"] == "FAILED"
    error = json.loads(job["error"])
    assert (error["status_code"], error["error"].get("param")) == (status, param)
