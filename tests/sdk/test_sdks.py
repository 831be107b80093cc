"""The official Anthropic SDKs, unmodified, against the service: one table for every version.

The tests share a loop with their apps, which live as long as the session.
"""

import json
import re
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from tests.client import BatchClient
from tests.flow.cloud import count_fired, faults
from tests.sdk.apps import App, Sdk, Threw
from tests.sdk.conftest import MAX_REQUESTS

# What expires takes its time: it begins with the first test.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("expired_batch")]

MODEL = "claude-haiku-4-5"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
EMPTY = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
WEATHER = {
    "name": "get_weather",
    "description": "The weather at a place",
    "input_schema": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}


def request(custom_id: str, text: str = "Hello, world", **params: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {
        "custom_id": custom_id,
        "params": {"model": MODEL, "max_tokens": 64, "messages": messages, **params},
    }


def requests(count: int, text: str = "Hello, world") -> list[dict[str, Any]]:
    return [request(f"request-{n}", f"{text} {n} {uuid4()}") for n in range(count)]


async def made_since(client: BatchClient, known: set[str]) -> set[str]:
    listed = await client.call("list", limit=1000)
    return {batch["id"] for batch in listed["batches"]} - known


async def count_calls(client: BatchClient) -> int:
    """Calls of /runsync so far."""
    return int((await client.control("/stats"))["runpod"]["batch-api"]["runsync"])


async def test_a_batch_is_created_retrieved_and_its_results_read_over_many_pages(app: App) -> None:
    asked = requests(20)
    made = await app.do("create", requests=asked)
    assert made["type"] == "message_batch"
    assert made["processing_status"] in ("in_progress", "ended")
    assert sum(made["request_counts"].values()) == 20
    for name in ("created_at", "expires_at"):
        assert TIME.fullmatch(made[name])
    ended = await app.ended(made["id"])
    assert ended["request_counts"] == {**EMPTY, "succeeded": 20}
    assert TIME.fullmatch(ended["ended_at"])
    assert (ended["archived_at"], ended["cancel_initiated_at"]) == (None, None)
    lines = await app.do("results", id=made["id"])
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in asked]
    for line in lines:
        assert line["result"]["type"] == "succeeded"
        message = line["result"]["message"]
        assert (message["type"], message["role"]) == ("message", "assistant")
        assert message["stop_reason"] in ("end_turn", "max_tokens")
        [block] = message["content"]
        assert block["type"] == "text"
        assert block["text"]
        assert message["usage"]["output_tokens"] > 0
    assert len({line["result"]["message"]["id"] for line in lines}) == 20
    # A body that is closed early.
    assert await app.do("first_result", id=made["id"]) == lines[0]


async def test_an_answer_names_its_request(app: App) -> None:
    made = await app.do("create", requests=requests(1))
    assert await app.do("request_id", id=made["id"])


async def test_each_request_fails_alone(app: App) -> None:
    image = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]
    made = await app.do(
        "create",
        requests=[
            request("fine"),
            request("rejected", "[[error]]"),
            request("image", messages=[{"role": "user", "content": image}]),
            request("unknown", model="gpt-4"),
        ],
    )
    ended = await app.ended(made["id"])
    assert ended["request_counts"] == {**EMPTY, "succeeded": 1, "errored": 3}
    results = {line["custom_id"]: line["result"] for line in await app.do("results", id=made["id"])}
    assert results["fine"]["type"] == "succeeded"
    for name in ("rejected", "image"):
        assert results[name]["type"] == "errored"
        assert results[name]["error"]["type"] == "error"
        assert results[name]["error"]["error"]["type"] == "invalid_request_error"
    assert "messages[0].content[0]: image" in results["image"]["error"]["error"]["message"]
    assert results["unknown"]["error"]["error"]["type"] == "not_found_error"


async def test_a_list_pages_by_itself_and_both_ways(app: App) -> None:
    newest_first = [(await app.do("create", requests=requests(1)))["id"] for _ in range(5)][::-1]
    assert await app.do("list_ids", limit=2, count=5) == newest_first
    page = await app.do("list_page", limit=2)
    assert [batch["id"] for batch in page["data"]] == newest_first[:2]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, *newest_first[:2])
    after = await app.do("list_page", limit=2, after_id=newest_first[1])
    assert [batch["id"] for batch in after["data"]] == newest_first[2:4]
    before = await app.do("list_page", limit=2, before_id=newest_first[3])
    assert [batch["id"] for batch in before["data"]] == newest_first[1:3]


async def test_a_cancel_stops_a_batch(app: App) -> None:
    made = await app.do("create", requests=[request("stuck", "[[stall]]")])
    canceled = await app.do("cancel", id=made["id"])
    assert canceled["processing_status"] in ("canceling", "ended")
    assert TIME.fullmatch(canceled["cancel_initiated_at"])
    ended = await app.ended(made["id"])
    assert ended["request_counts"] == {**EMPTY, "canceled": 1}
    assert await app.do("results", id=made["id"]) == [{"custom_id": "stuck", "result": {"type": "canceled"}}]


async def test_a_request_that_did_not_run_in_time_expired(app: App, expired_batch: str) -> None:
    ended = await app.ended(expired_batch)
    assert ended["request_counts"] == {**EMPTY, "expired": 1}
    assert await app.do("results", id=expired_batch) == [{"custom_id": "late", "result": {"type": "expired"}}]


async def test_a_deleted_batch_is_gone(app: App) -> None:
    made = await app.do("create", requests=requests(1))
    await app.ended(made["id"])
    assert await app.do("delete", id=made["id"]) == {"id": made["id"], "type": "message_batch_deleted"}
    for operation in ("retrieve", "results", "cancel"):
        with pytest.raises(Threw) as gone:
            await app.do(operation, id=made["id"])
        assert (gone.value.name, gone.value.status) == ("NotFoundError", 404)
        assert gone.value.type == "not_found_error"


async def test_a_batch_that_goes_on_is_not_deleted_and_has_no_results(app: App) -> None:
    made = await app.do("create", requests=[request("stuck", "[[stall]]")])
    with pytest.raises(Threw) as refused:
        await app.do("delete", id=made["id"])
    assert (refused.value.name, refused.value.status) == ("ConflictError", 409)
    with pytest.raises(Threw, match="results_url"):
        await app.do("results", id=made["id"])
    await app.do("cancel", id=made["id"])


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        pytest.param([], "requests", id="none"),
        pytest.param([request("same"), request("same")], "requests[1].custom_id", id="doubled"),
        pytest.param([request("no spaces")], "requests[0].custom_id", id="named-badly"),
    ],
)
async def test_a_batch_that_is_wrong_is_a_bad_request(
    app: App, asked: Sequence[dict[str, Any]], field: str
) -> None:
    with pytest.raises(Threw) as refused:
        await app.do("create", requests=asked)
    assert (refused.value.name, refused.value.status) == ("BadRequestError", 400)
    assert refused.value.type == "invalid_request_error"
    assert field in refused.value.message
    assert refused.value.request_id


async def test_a_batch_that_is_too_large_is_a_413(app: App, sdk: Sdk) -> None:
    with pytest.raises(Threw) as refused:
        await app.do("create", requests=requests(MAX_REQUESTS + 1))
    assert (refused.value.status, refused.value.type) == (413, "request_too_large")
    # The older TypeScript SDK has no class of its own for it.
    assert refused.value.name in ("APIError", "RequestTooLargeError", "ContentTooLargeError")
    assert str(MAX_REQUESTS) in refused.value.message


async def test_one_idempotency_key_is_one_batch_and_another_body_a_conflict(app: App) -> None:
    headers = {"idempotency-key": str(uuid4())}
    asked = requests(2)
    made = await app.do("create", requests=asked, headers=headers)
    assert (await app.do("create", requests=asked, headers=headers))["id"] == made["id"]
    with pytest.raises(Threw) as refused:
        await app.do("create", requests=requests(2), headers=headers)
    assert (refused.value.name, refused.value.status) == ("ConflictError", 409)


async def test_a_key_that_runpod_refuses_is_an_authentication_error(app: App) -> None:
    with pytest.raises(Threw) as refused:
        await app.do("retrieve_with_key", id="batch_x", api_key="rpa_WRONG")
    assert (refused.value.name, refused.value.status) == ("AuthenticationError", 401)
    assert refused.value.type == "authentication_error"
    assert "rpa_WRONG" not in refused.value.message


async def test_a_create_that_the_edge_cut_is_made_once(app: App, client: BatchClient) -> None:
    known = await made_since(client, set())
    fired = await count_fired(client, "runsync_524")
    async with faults(client, runsync_524={"times": 2}):
        made = await app.do("create", requests=requests(3))
    assert await count_fired(client, "runsync_524") - fired == 2
    assert await made_since(client, known) == {made["id"]}


async def test_a_create_whose_reply_was_lost_is_made_once_although_the_sdk_itself_repeats_it(
    app: App, client: BatchClient
) -> None:
    known = await made_since(client, set())
    made = await app.do("create_cut", requests=requests(3))
    assert await made_since(client, known) == {made["id"]}


async def test_two_creates_of_the_same_requests_are_two_batches(app: App) -> None:
    asked = requests(1)
    first, second = [await app.do("create", requests=asked) for _ in range(2)]
    assert first["id"] != second["id"]


async def test_one_message_is_answered_at_once(app: App) -> None:
    message = await app.do("message", **request("unused", system="Be brief.")["params"])
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert message["content"][0]["type"] == "text"
    assert message["content"][0]["text"]
    assert message["usage"]["input_tokens"] > 0


async def test_a_message_that_a_text_model_cannot_read_is_a_bad_request(app: App) -> None:
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    wrong = request("unused", messages=[{"role": "user", "content": [document]}])["params"]
    with pytest.raises(Threw) as refused:
        await app.do("message", **wrong)
    assert (refused.value.name, refused.value.status) == ("BadRequestError", 400)
    assert "document" in refused.value.message


async def test_a_tool_is_used_and_its_result_read(app: App) -> None:
    question = {"role": "user", "content": "What does get_weather say about Paris?"}
    params = {"model": MODEL, "max_tokens": 256, "tools": [WEATHER], "messages": [question]}
    message = await app.do("message", **params, tool_choice={"type": "any"})
    assert message["stop_reason"] == "tool_use"
    [call] = [block for block in message["content"] if block["type"] == "tool_use"]
    assert call["name"] == "get_weather"
    assert isinstance(call["input"]["location"], str)
    turns = [
        question,
        {"role": "assistant", "content": message["content"]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "15 degrees"}],
        },
    ]
    answer = await app.do("message", **{**params, "messages": turns})
    assert answer["stop_reason"] in ("end_turn", "max_tokens")
    assert [block["type"] for block in answer["content"]] == ["text"]


async def test_a_tool_is_used_in_a_batch(app: App) -> None:
    tools: dict[str, Any] = {
        "tools": [WEATHER],
        "tool_choice": {"type": "tool", "name": "get_weather"},
        "max_tokens": 256,
    }
    made = await app.do("create", requests=[request("tool", **tools)])
    await app.ended(made["id"])
    [line] = await app.do("results", id=made["id"])
    message = line["result"]["message"]
    assert message["stop_reason"] == "tool_use"
    assert [block["name"] for block in message["content"] if block["type"] == "tool_use"] == ["get_weather"]


async def test_json_is_answered_where_it_is_asked_for(app: App) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    output = {"format": {"type": "json_schema", "schema": schema}}
    message = await app.do("message", **request("unused", output_config=output, max_tokens=256)["params"])
    assert isinstance(json.loads(message["content"][0]["text"])["name"], str)


async def test_models_are_listed(app: App) -> None:
    assert set(await app.do("models")) >= {"mistral", "llama-70b"}


async def test_a_large_batch_goes_up_in_parts(app: App, client: BatchClient) -> None:
    before = await count_calls(client)
    asked = [request(f"request-{n}", f"{n} {'x' * 225_000}") for n in range(20)]
    made = await app.do("create", requests=asked)
    assert await count_calls(client) - before == 3, "two parts and the create"
    await app.ended(made["id"])
    lines = await app.do("results", id=made["id"])
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in asked]


async def test_a_fault_in_a_large_batch_names_the_request_of_the_whole(app: App) -> None:
    asked = [request(f"request-{n}", "x" * 225_000) for n in range(20)]
    with pytest.raises(Threw) as refused:
        await app.do("create", requests=[*asked, request("no spaces")])
    assert refused.value.name == "BadRequestError"
    assert "requests[20].custom_id" in refused.value.message
