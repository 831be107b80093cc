"""Anthropic's API through the local cloud: the operation `http` on an unmodified SDK worker, real Redis and engines."""

import asyncio
import json
from typing import Any

from tests.client import BatchClient
from tests.flow.cloud import faults

BATCHES = "/v1/messages/batches"
TOOL = {
    "name": "save_lead",
    "description": "Saves a lead.",
    "input_schema": {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
    },
}


def params(text: Any = "Say hello.", **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-haiku-4-5", "max_tokens": 500, "messages": messages, **changes}


def text_block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


async def send(
    client: BatchClient, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.call(
        "http", method=method, path=path, headers=named, body=None if body is None else json.dumps(body)
    )
    return answer["status_code"], answer["headers"], answer["body"]


async def read(client: BatchClient, path: str) -> dict[str, Any]:
    status, _, body = await send(client, "GET", path)
    assert status == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


async def ended(client: BatchClient, batch_id: str) -> dict[str, Any]:
    await client.wait(batch_id)
    return await read(client, f"{BATCHES}/{batch_id}")


async def results(client: BatchClient, batch_id: str) -> dict[str, dict[str, Any]]:
    """custom_id -> result, of all pages."""
    found: dict[str, dict[str, Any]] = {}
    page = ""
    while True:
        answer = await client.call(
            "http", method="GET", path=f"{BATCHES}/{batch_id}/results", query={"page": page} if page else {}
        )
        assert answer["status_code"] == 200, answer
        lines = [json.loads(line) for line in answer["body"].splitlines()]
        found.update({line["custom_id"]: line["result"] for line in lines})
        page = answer["headers"].get("x-next-page", "")
        if not page:
            return found


async def test_a_batch_goes_from_create_to_results_and_a_fault_stays_alone(client: BatchClient) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    requests = [
        {"custom_id": f"lead-{number}", "params": params(f"Write to lead {number}.")} for number in range(20)
    ] + [
        {"custom_id": "large", "params": params(model="claude-opus-4-1")},
        {"custom_id": "blocks", "params": params([text_block("Hi.")], system=[text_block("Be brief.")])},
        {"custom_id": "image", "params": params([image])},
        {"custom_id": "no-limit", "params": params(max_tokens=None)},
        {"custom_id": "no-model", "params": params(model="gpt-4")},
        {"custom_id": "thinking", "params": params(thinking={"type": "enabled", "budget_tokens": 1024})},
    ]  # fmt: skip
    status, _, body = await send(client, "POST", BATCHES, {"requests": requests}, host="proxy.example")
    assert status == 200, body
    batch = await ended(client, json.loads(body)["id"])
    assert batch["processing_status"] == "ended"
    assert batch["request_counts"] == {
        "processing": 0,
        "succeeded": 22,
        "errored": 4,
        "canceled": 0,
        "expired": 0,
    }
    found = await results(client, batch["id"])
    assert list(found) == [request["custom_id"] for request in requests]
    errors = {
        name: (result["error"]["error"]["type"], result["error"]["error"]["message"].partition(":")[0])
        for name, result in found.items()
        if result["type"] == "errored"
    }
    assert errors == {
        "image": ("invalid_request_error", "messages[0].content[0]"),
        "no-limit": ("invalid_request_error", "max_tokens"),
        "no-model": ("not_found_error", "model"),
        "thinking": ("invalid_request_error", "thinking"),
    }
    assert found["lead-3"]["message"]["stop_reason"] == "end_turn"
    assert {name: found[name]["message"]["model"] for name in ("lead-3", "large")} == {
        "lead-3": "mistral",
        "large": "llama-70b",
    }


async def test_a_create_whose_reply_is_lost_is_sent_again_and_makes_one_batch(client: BatchClient) -> None:
    body = {"requests": [{"custom_id": "a", "params": params()}]}
    made = [await send(client, "POST", BATCHES, body, idempotency_key="http-once") for _ in range(3)]
    assert len({json.loads(text)["id"] for _, _, text in made}) == 1


async def test_a_requests_own_stage_gives_it_that_stages_model_and_schema(client: BatchClient) -> None:
    requests = [
        {"custom_id": "own", "params": params(metadata={"stage": "facts"})},
        {"custom_id": "batchs", "params": params()},
    ]
    _, _, body = await send(client, "POST", BATCHES, {"requests": requests}, x_batch_stage="email")
    found = await results(client, (await ended(client, json.loads(body)["id"]))["id"])
    own, batchs = (found[name]["message"] for name in ("own", "batchs"))
    assert (own["model"], batchs["model"]) == ("llama-70b", "mistral")
    assert json.loads(own["content"][0]["text"]).keys() == {"items"}


async def test_a_message_is_answered_while_a_batch_runs(client: BatchClient) -> None:
    requests = [{"custom_id": f"lead-{number}", "params": params()} for number in range(300)]
    _, _, body = await send(client, "POST", BATCHES, {"requests": requests})
    status, headers, text = await send(client, "POST", "/v1/messages", params("How are you?"))
    message = json.loads(text)
    assert status == 200, text
    assert headers["request-id"]
    assert (message["type"], message["role"], message["stop_reason"]) == ("message", "assistant", "end_turn")
    assert message["content"][0]["type"] == "text"
    assert message["usage"]["output_tokens"] > 0
    batch = await ended(client, json.loads(body)["id"])
    assert batch["request_counts"]["succeeded"] == 300


async def test_a_message_uses_a_tool(client: BatchClient) -> None:
    asked = params("Save Ada.", tools=[TOOL], tool_choice={"type": "tool", "name": "save_lead"})
    status, _, text = await send(client, "POST", "/v1/messages", asked)
    message = json.loads(text)
    assert (status, message["stop_reason"]) == (200, "tool_use")
    [used] = [block for block in message["content"] if block["type"] == "tool_use"]
    assert (used["name"], set(used["input"])) == ("save_lead", {"name"})


async def test_a_message_that_a_text_model_can_not_answer_is_400(client: BatchClient) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    status, _, text = await send(client, "POST", "/v1/messages", params([image]))
    error = json.loads(text)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith("messages[0].content[0]")


async def test_many_messages_at_once_are_all_answered(client: BatchClient) -> None:
    sent = [send(client, "POST", "/v1/messages", params(f"Number {number}.")) for number in range(40)]
    assert {status for status, _, _ in await asyncio.gather(*sent)} == {200}


async def test_a_message_whose_call_the_edge_cuts_is_overloaded_and_may_be_sent_again(
    client: BatchClient,
) -> None:
    body = json.dumps(params())
    call = {"operation": "http", "method": "POST", "path": "/v1/messages", "body": body}
    async with faults(client, runsync_524={"times": 1}):
        # By /run, so that it is the batch handler's own call that is cut.
        async with client.session.post(f"{client.url}/run", json={"input": call}) as submitted:
            job = (await submitted.json())["id"]
        async with client.session.get(f"{client.url}/status-sync/{job}?wait=60000") as ended_job:
            output = (await ended_job.json())["output"]
    assert (output["status_code"], json.loads(output["body"])["error"]["type"]) == (529, "overloaded_error")
    assert (await send(client, "POST", "/v1/messages", params()))[0] == 200
