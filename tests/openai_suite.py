"""What the OpenAI surface of a model endpoint promises, whatever the engine: asked through the official SDK.

Inherit `OpenAISuite` in a test class and give it the fixture `server`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionMessageParam

FINISH_REASONS = ("stop", "length")
MAX_TOKENS = 24
# Where an answer must have text: what a model without knowledge says by chance may be nothing.
LIKELIEST = 0
# Engines may load their OpenAI surface at the first call, on a machine that is busy.
PATIENCE_S = 240


@dataclass(frozen=True)
class OpenAIServer:
    """A RunPod endpoint by its URL (`.../v2/{id}`). `models` are the names it answers to, its own first."""

    url: str
    api_key: str
    models: tuple[str, ...]

    @property
    def model(self) -> str:
        return self.models[0]

    def client(self) -> openai.AsyncOpenAI:
        """Without the SDK's retries, which would hide a fault."""
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/openai/v1", api_key=self.api_key, max_retries=0, timeout=PATIENCE_S
        )

    async def run(self, job_input: Mapping[str, Any]) -> dict[str, Any]:
        """The job object of a /runsync that has ended."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        async with httpx.AsyncClient(headers=headers, timeout=PATIENCE_S) as client:
            answer = await client.post(
                f"{self.url}/runsync", params={"wait": 1000 * PATIENCE_S}, json={"input": job_input}
            )
        job: dict[str, Any] = answer.json()
        return job


def messages(text: str = "Write to Ada.") -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


class OpenAISuite:
    @pytest_asyncio.fixture
    async def client(self, server: OpenAIServer) -> AsyncIterator[openai.AsyncOpenAI]:
        async with server.client() as client:
            yield client

    async def test_the_models_are_all_names_it_answers_to(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        listed = [model async for model in client.models.list()]
        assert [model.id for model in listed] == list(server.models)
        assert {model.object for model in listed} == {"model"}

    async def test_a_chat_is_answered(self, server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(
            model=server.model,
            messages=[{"role": "system", "content": "Be brief."}, *messages()],
            max_tokens=MAX_TOKENS,
            temperature=LIKELIEST,
        )
        [choice] = answer.choices
        assert (answer.object, answer.model, choice.index) == ("chat.completion", server.model, 0)
        assert choice.message.role == "assistant"
        assert choice.message.content
        assert choice.finish_reason in FINISH_REASONS
        assert answer.usage is not None
        assert 1 <= answer.usage.completion_tokens <= MAX_TOKENS
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    async def test_it_answers_to_each_of_its_names(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        for name in server.models:
            answer = await client.chat.completions.create(model=name, messages=messages(), max_tokens=2)
            assert answer.choices[0].message.role == "assistant"

    async def test_a_chat_can_be_streamed(self, server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model=server.model,
            messages=messages(),
            max_tokens=MAX_TOKENS,
            temperature=LIKELIEST,
            stream=True,
            stream_options={"include_usage": True},
        )
        *events, last = [event async for event in stream]
        assert {event.object for event in (*events, last)} == {"chat.completion.chunk"}
        assert len({event.id for event in (*events, last)}) == 1
        assert events[0].choices[0].delta.role == "assistant"
        assert "".join(event.choices[0].delta.content or "" for event in events)
        reasons = [event.choices[0].finish_reason for event in events]
        assert reasons[-1] in FINISH_REASONS
        assert set(reasons[:-1]) == {None}
        assert last.choices == []
        assert last.usage is not None
        assert 1 <= last.usage.completion_tokens <= MAX_TOKENS

    async def test_texts_are_completed_each_in_its_place(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        answer = await client.completions.create(
            model=server.model, prompt=["Dear Ada,", "Dear Bob,"], max_tokens=MAX_TOKENS
        )
        assert answer.object == "text_completion"
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert all(choice.finish_reason in FINISH_REASONS for choice in answer.choices)
        assert answer.usage is not None
        assert 2 <= answer.usage.completion_tokens <= 2 * MAX_TOKENS

    async def test_a_completion_can_be_streamed(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        stream = await client.completions.create(
            model=server.model, prompt="Dear Ada,", max_tokens=MAX_TOKENS, stream=True
        )
        events = [event async for event in stream]
        assert {event.object for event in events} == {"text_completion"}
        assert events[-1].choices[0].finish_reason in FINISH_REASONS

    async def test_a_hundred_calls_at_once_are_all_answered(
        self, server: OpenAIServer, client: openai.AsyncOpenAI
    ) -> None:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model=server.model, messages=messages(f"Write to lead {n}."), max_tokens=MAX_TOKENS
                )
                for n in range(100)
            )
        )
        assert len({answer.id for answer in answers}) == 100
        assert all(answer.choices[0].finish_reason in FINISH_REASONS for answer in answers)

    @pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"n": 2}], ids=["temperature", "n"])
    async def test_a_bad_parameter_is_a_bad_request_that_names_it(
        self, server: OpenAIServer, client: openai.AsyncOpenAI, bad: dict[str, Any]
    ) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=server.model, messages=messages(), max_tokens=4, **bad)
        [name] = bad
        assert error_of(caught.value, 400)["type"] == "BadRequestError"
        assert name in caught.value.message

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    async def test_an_unknown_model_is_not_found(self, client: openai.AsyncOpenAI, stream: bool) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="no-such-model", messages=messages(), stream=stream)
        error = error_of(caught.value, 404)
        assert error["type"] == "NotFoundError"
        assert "no-such-model" in error["message"]

    async def test_another_route_is_not_found(self, server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.embeddings.create(model=server.model, input="hello")
        assert "/v1/embeddings" in error_of(caught.value, 404)["message"]

    @pytest.mark.parametrize(
        "prompt",
        [
            {"prompt": "Dear Ada,"},
            {"prompt": "Write to Ada.", "apply_chat_template": True},
            {"messages": messages()},
        ],
        ids=["prompt", "prompt-as-chat", "messages"],
    )
    async def test_a_plain_input_is_answered_in_its_own_form(
        self, server: OpenAIServer, prompt: Mapping[str, Any]
    ) -> None:
        sampling = {"max_tokens": MAX_TOKENS, "temperature": 0.5, "top_k": 20, "seed": 7}
        job = await server.run({**prompt, "sampling_params": sampling})
        assert job["status"] == "COMPLETED", job
        [answer] = job["output"]
        assert answer.keys() == {"choices", "usage"}
        [[text]] = [choice["tokens"] for choice in answer["choices"]]
        assert isinstance(text, str)
        assert answer["usage"]["input"] >= 1
        assert 1 <= answer["usage"]["output"] <= MAX_TOKENS

    async def test_a_plain_input_can_be_streamed(self, server: OpenAIServer) -> None:
        sampling = {"max_tokens": MAX_TOKENS, "temperature": LIKELIEST}
        job = await server.run({"messages": messages(), "sampling_params": sampling, "stream": True})
        assert job["status"] == "COMPLETED", job
        written = [part["usage"]["output"] for part in job["output"]]
        assert written == sorted(written)
        assert 1 <= written[-1] <= MAX_TOKENS
        assert all(part["choices"][0]["tokens"] for part in job["output"])

    async def test_a_plain_input_without_a_limit_gets_a_hundred_tokens_at_most(
        self, server: OpenAIServer
    ) -> None:
        job = await server.run({"prompt": "Dear Ada,", "sampling_params": {"ignore_eos": True}})
        assert job["output"][0]["usage"]["output"] <= 100

    async def test_a_misspelt_sampling_parameter_fails_the_job_by_its_name(
        self, server: OpenAIServer
    ) -> None:
        job = await server.run({"prompt": "Dear Ada,", "sampling_params": {"max_token": 5}})
        assert job["status"] == "FAILED"
        assert "sampling_params.max_token: unknown field" in job["error"]


def error_of(error: openai.APIStatusError, status_code: int) -> Mapping[str, Any]:
    """OpenAI's error object, exactly as the engine wrote it."""
    body = error.body
    assert isinstance(body, dict)
    assert {"message", "type", "param", "code"} == body.keys()
    assert (error.status_code, body["code"]) == (status_code, status_code)
    return body
