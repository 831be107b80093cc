"""Batches through the local cloud on two real engines: mixed, structured, odd and canceled ones."""

import json
from typing import Any

import jsonschema
import pytest

from tests.client import BatchClient
from tests.flow.cloud import eventually
from tests.flow.expected import assert_failed, counts, watch
from tests.vllm.conftest import PATIENCE_S, SPECIAL_TOKEN, TICKET, json_format

MODELS = ("mistral", "llama-70b")
SHORT = 24
# What a model without knowledge says is a matter of luck, and may be nothing at all; how much it says is not.
FULL: dict[str, Any] = {"min_tokens": SHORT, "max_tokens": SHORT}


def request(number: int, model: str, text: str = "Write to lead {n}.", **params: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text.replace("{n}", str(number))}]
    return {
        "custom_id": f"lead_{number}",
        "params": {"messages": messages, "max_tokens": SHORT, **params},
        "metadata": {"model_hint": model},
    }


async def run(client: BatchClient, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a batch, which are one for each request and in their order."""
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    await watch(client, batch_id, poll_s=0.1, timeout_s=PATIENCE_S)
    lines = await client.lines(batch_id)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in requests]
    return lines


def text_of(line: dict[str, Any]) -> str:
    assert line["status"] == "succeeded", line["error"]
    [part] = line["message"]["content"]
    return str(part["text"])


def assert_full(line: dict[str, Any]) -> None:
    """The line of a request with as many tokens as it may have."""
    assert line["status"] == "succeeded", line["error"]
    assert (line["usage"]["output_tokens"], line["message"]["stop_reason"]) == (SHORT, "max_tokens")


async def running(client: BatchClient, requests: list[dict[str, Any]]) -> str:
    """A batch that a worker is busy with, or was where it is a quick one."""
    batch_id: str = (await client.call("create", stage="email", requests=requests))["id"]

    async def begun() -> bool:
        return (await client.call("status", id=batch_id))["processing_status"] in ("processing", "ended")

    await eventually(begun, "a worker began", PATIENCE_S)
    return batch_id


async def test_five_hundred_requests_for_two_models_come_back_whole_and_in_order(client: BatchClient) -> None:
    structured = {"max_tokens": 400, "response_format": json_format(TICKET)}
    requests = [
        request(n, MODELS[n % 2], **(structured if n % 5 == 0 else {"system": "Be brief."}))
        for n in range(500)
    ]
    lines = await run(client, requests)
    assert [line["model"] for line in lines] == [MODELS[n % 2] for n in range(500)]
    for n, line in enumerate(lines):
        text = text_of(line)
        if n % 5 == 0:
            jsonschema.validate(json.loads(text), TICKET)
            assert line["message"]["stop_reason"] == "end_turn"
        elif n % 2 == 0 or line["message"]["stop_reason"] != "end_turn":
            # The tiny Mistral never ends a turn by itself.
            assert_full(line)
    plain = [line for n, line in enumerate(lines) if n % 2 == 1 and n % 5 != 0]
    # Some 85 of 200, give or take 7.
    assert sum(line["message"]["stop_reason"] == "end_turn" for line in plain) > 40, (
        "the tiny Llama ends turns by itself"
    )
    assert not [line for line in lines if SPECIAL_TOKEN.search(text_of(line))]


async def test_an_answer_cut_before_its_json_ends_is_an_error_of_the_model(client: BatchClient) -> None:
    cut = request(0, "mistral", max_tokens=2, response_format=json_format(TICKET))
    tried = request(1, "mistral", max_tokens=2, response_format=json_format(TICKET), on_invalid="retry")
    whole = request(2, "mistral", max_tokens=400, response_format=json_format(TICKET))
    *invalid, valid = await run(client, [cut, tried, whole])
    for line in invalid:
        assert_failed(line, "errored", "model_error", "mistral")
        assert line["error"]["message"].startswith("Output validation failed")
    jsonschema.validate(json.loads(text_of(valid)), TICKET)


@pytest.mark.parametrize("model", MODELS)
async def test_a_prompt_longer_than_the_context_fails_alone_with_the_numbers(
    client: BatchClient, model: str
) -> None:
    first, too_long, last = await run(
        client,
        [request(0, model, **FULL), request(1, model, "word " * 10_000), request(2, model, **FULL)],
    )
    assert_failed(too_long, "errored", "invalid_request_error", model)
    assert "8192" in too_long["error"]["message"]
    assert_full(first)
    assert_full(last)


@pytest.mark.parametrize("model", MODELS)
async def test_turns_in_any_order_are_answered_or_refused_alone(client: BatchClient, model: str) -> None:
    def turns(*roles: str) -> list[dict[str, str]]:
        return [{"role": role, "content": f"turn {number}"} for number, role in enumerate(roles)]

    alternating, doubled, prefilled, leading = await run(
        client,
        [
            request(0, model, system="Be brief.", messages=turns("user", "assistant", "user"), **FULL),
            request(1, model, messages=turns("user", "user", "assistant", "assistant", "user"), **FULL),
            request(2, model, system="Be brief.", messages=turns("user", "assistant"), **FULL),
            request(3, model, messages=turns("assistant", "user")),
        ],
    )
    for line in (alternating, doubled, prefilled):
        assert_full(line)
    assert_failed(leading, "errored", "invalid_request_error", model)
    assert "messages[0]" in leading["error"]["message"]


async def test_a_canceled_batch_ends_soon_and_frees_the_engine(client: BatchClient) -> None:
    long = [request(n, "mistral", min_tokens=8000, max_tokens=8000) for n in range(64)]
    batch_id = await running(client, long)
    await client.call("cancel", id=batch_id)
    # Without the cancel, all would succeed.
    statuses = await watch(client, batch_id, timeout_s=PATIENCE_S)
    assert statuses[-1]["counts"] == counts(64, 0, canceled=64)
    [after] = await run(client, [request(0, "mistral", **FULL)])
    assert_full(after)
