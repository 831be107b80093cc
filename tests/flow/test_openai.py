"""The OpenAI surface of a model endpoint: the official SDK, an unmodified SDK worker and the simulated engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk

from handlers.mistral.model import CARD
from shared.engines.simulated import answer
from tests.client import BatchClient, batch_client, make_requests
from tests.flow.cloud import FAST, JOBS_AT_ONCE, FlowCloud, eventually
from tests.openai_suite import OpenAIServer, OpenAISuite, messages

NAMES = ("mistral", "mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b")
ROUNDS = int(FAST["SIM_SLOTS"]) // JOBS_AT_ONCE


@pytest.fixture
def server(cloud: FlowCloud) -> OpenAIServer:
    return OpenAIServer(cloud.worker_env["MISTRAL_BASE_URL"], cloud.address["api_key"], NAMES)


@pytest_asyncio.fixture
async def batches(cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    address = cloud.address
    async with batch_client(address["batch_url"], address["api_key"], address["control_url"]) as client:
        yield client


async def running_jobs(server: OpenAIServer) -> list[dict[str, Any]]:
    """Those of calls: shards are submitted by /run, which gives other ids."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{server.url}/requests") as listed,
    ):
        jobs: list[dict[str, Any]] = (await listed.json())["requests"]
    return [job for job in jobs if job["status"] == "IN_PROGRESS" and job["id"].startswith("sync-")]


async def cancel(server: OpenAIServer, job_id: str) -> None:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{server.url}/cancel/{job_id}") as answered,
    ):
        assert (await answered.json())["status"] == "CANCELLED"


async def first_token(
    server: OpenAIServer, client: openai.AsyncOpenAI
) -> openai.AsyncStream[ChatCompletionChunk]:
    """A stream that has begun and never ends."""
    events = await client.chat.completions.create(
        model=server.model, messages=messages("[[stall]] after one token"), stream=True
    )
    assert (await anext(events)).choices[0].delta.role == "assistant"
    assert (await anext(events)).choices[0].delta.content
    return events


class TestOpenAI(OpenAISuite):
    async def test_a_call_and_a_stream_say_what_a_batch_would(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        whole = await client.chat.completions.create(model=server.model, messages=messages())
        stream = await client.chat.completions.create(model=server.model, messages=messages(), stream=True)
        streamed = [event.choices[0].delta.content or "" async for event in stream]
        said = answer({"messages": messages(), "max_tokens": CARD.context_tokens})
        assert whole.choices[0].message.content == said
        assert "".join(streamed) == said
        assert len(streamed) == len(said.split()) + 1, "one event for each token, and one for the role"

    async def test_the_first_token_arrives_while_the_rest_is_not_there_yet(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        events = await first_token(server, client)
        [job] = await running_jobs(server)
        await cancel(server, job["id"])
        with pytest.raises(openai.APIError, match="CANCELLED"):
            await anext(events)

    async def test_a_canceled_call_frees_its_slot_in_the_engine(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        # A worker holds fewer jobs than the engine has slots; after so many rounds none would be free.
        for _ in range(ROUNDS):
            # A job is canceled once it has said something: the SDK loses a stop for one that it has only just taken.
            await asyncio.gather(*(first_token(server, client) for _ in range(JOBS_AT_ONCE)))
            jobs = await running_jobs(server)
            assert len(jobs) == JOBS_AT_ONCE
            await asyncio.gather(*(cancel(server, job["id"]) for job in jobs))
        after = await client.chat.completions.create(model=server.model, messages=messages())
        assert after.choices[0].message.content

    async def test_a_busy_engine_is_a_503_that_the_sdk_may_retry(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model=server.model, messages=messages("[[busy]]"))
        assert caught.value.status_code == 503
        again = client.with_options(max_retries=2)
        done = await again.chat.completions.create(model=server.model, messages=messages("[[busy-once]]"))
        assert done.choices[0].message.content

    async def test_a_call_during_a_big_batch_is_answered_long_before_its_end(
        self, server: OpenAIServer, client: openai.AsyncOpenAI, batches: BatchClient
    ) -> None:
        batch_id = (await batches.call("create", stage="email", requests=make_requests(2400)))["id"]

        async def runs() -> bool:
            counts = (await batches.call("status", id=batch_id))["counts"]
            return bool(counts["succeeded"])

        await eventually(runs, "the batch runs")
        await client.chat.completions.create(model=server.model, messages=messages())
        assert (await batches.call("cancel", id=batch_id))["processing_status"] != "ended"
        ended = await batches.wait(batch_id)
        assert ended["counts"]["canceled"] > 0

    async def test_an_input_of_neither_kind_is_refused_as_a_shard(self, server: OpenAIServer) -> None:
        job = await server.run({"promt": "hello"})
        assert job["status"] == "FAILED"
        assert json.loads(job["error"])["error"]["type"] == "invalid_request_error"
