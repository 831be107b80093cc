"""The simulated engine's calls: OpenAI's shapes and errors, and their place before the requests of batches."""

import asyncio
import json
from typing import Any

import pytest

from shared.engines.simulated import SimTiming, SimulatedEngine
from shared.engines.slots import Slots
from shared.ports.engine import Call, Prompt

QUICK = SimTiming(ttft_ms=0, tpot_ms=0, slots=2)
MODELS = ("small", "org/small")
USER = [{"role": "user", "content": "hello"}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def engine() -> SimulatedEngine:
    return SimulatedEngine(QUICK, MODELS)


async def call(
    engine: SimulatedEngine, path: str, body: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of a call that is not streamed."""
    reply = await engine.call(Call("GET" if body is None else "POST", path, body))
    assert not reply.streaming
    [chunk] = [chunk async for chunk in reply.chunks]
    decoded: dict[str, Any] = json.loads(chunk)
    return reply.status_code, decoded


async def stream(engine: SimulatedEngine, path: str, **body: Any) -> list[Any]:
    """The events of a streamed call, each of which is one chunk."""
    reply = await engine.call(Call("POST", path, {"stream": True, **body}))
    assert (reply.status_code, reply.streaming) == (200, True)
    lines = [chunk.decode() async for chunk in reply.chunks]
    assert lines.pop() == "data: [DONE]\n\n"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


class TestShapes:
    async def test_models(self, engine: SimulatedEngine) -> None:
        status, body = await call(engine, "/v1/models")
        assert (status, body["object"]) == (200, "list")
        assert [model["id"] for model in body["data"]] == list(MODELS)

    async def test_a_chat_says_what_a_request_of_a_batch_says(self, engine: SimulatedEngine) -> None:
        params = {"system": "be brief", "messages": USER, "max_tokens": 2048}
        done = await engine.generate(Prompt("r1", params))
        messages = [{"role": "system", "content": "be brief"}, *USER]
        _, body = await call(engine, CHAT, {"messages": messages})
        assert body["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": done.text},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert body["usage"] == {
            "prompt_tokens": done.input_tokens,
            "completion_tokens": done.output_tokens,
            "total_tokens": done.input_tokens + done.output_tokens,
        }

    async def test_a_completion_has_sixteen_tokens_unless_told(self, engine: SimulatedEngine) -> None:
        _, body = await call(engine, COMPLETIONS, {"prompt": "hello"})
        [choice] = body["choices"]
        assert (len(choice["text"].split()), choice["finish_reason"]) == (16, "length")

    @pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
    async def test_a_chat_stops_at_its_limit(self, engine: SimulatedEngine, limit: str) -> None:
        _, body = await call(engine, CHAT, {"messages": USER, limit: 3})
        assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (3, "length")

    async def test_text_parts_of_a_message_are_joined(self, engine: SimulatedEngine) -> None:
        parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
        _, one = await call(engine, CHAT, {"messages": [{"role": "user", "content": parts}]})
        _, same = await call(engine, CHAT, {"messages": [{"role": "user", "content": "hel\nlo"}]})
        assert one["choices"] == same["choices"]

    @pytest.mark.parametrize(
        ("path", "prompt"), [(CHAT, {"messages": USER}), (COMPLETIONS, {"prompt": "hello"})]
    )
    async def test_a_stream_says_the_same_as_the_whole(
        self, engine: SimulatedEngine, path: str, prompt: dict[str, Any]
    ) -> None:
        _, whole = await call(engine, path, prompt)
        events = await stream(engine, path, **prompt)
        choices = [event["choices"][0] for event in events]
        said = [choice["delta"]["content"] if path == CHAT else choice["text"] for choice in choices]
        expected = whole["choices"][0]
        assert "".join(said) == (expected["message"]["content"] if path == CHAT else expected["text"])
        assert choices[-1]["finish_reason"] == expected["finish_reason"]
        assert not any("usage" in event for event in events)

    async def test_usage_comes_last_when_asked_for(self, engine: SimulatedEngine) -> None:
        _, whole = await call(engine, CHAT, {"messages": USER})
        *events, last = await stream(engine, CHAT, messages=USER, stream_options={"include_usage": True})
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert not any("usage" in event for event in events)

    async def test_usage_can_be_counted_on(self, engine: SimulatedEngine) -> None:
        options = {"include_usage": True, "continuous_usage_stats": True}
        events = await stream(engine, CHAT, messages=USER, max_tokens=3, stream_options=options)
        assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 2, 3, 3]


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "body", "param"),
        [
            (CHAT, {}, "messages"),
            (CHAT, {"messages": []}, "messages"),
            (CHAT, {"messages": ["hello"]}, "messages[0].role"),
            (
                CHAT,
                {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
                "messages[0].content",
            ),
            (CHAT, {"messages": USER, "max_tokens": 0}, "max_tokens"),
            (CHAT, {"messages": USER, "temperature": "hot"}, "temperature"),
            (CHAT, {"messages": USER, "n": 2}, "n"),
            (CHAT, {"messages": USER, "tools": [{"type": "function"}]}, "tools"),
            (COMPLETIONS, {"prompt": [[1, 2]]}, "prompt"),
            (COMPLETIONS, {"prompt": []}, "prompt"),
        ],
    )
    async def test_a_bad_field_is_named(
        self, engine: SimulatedEngine, path: str, body: dict[str, Any], param: str
    ) -> None:
        status, answer = await call(engine, path, {**body, "stream": True})
        error = answer["error"]
        assert (status, error["code"], error["type"], error["param"]) == (400, 400, "BadRequestError", param)
        assert param in error["message"]

    async def test_harmless_fields_are_let_pass(self, engine: SimulatedEngine) -> None:
        harmless = {"logprobs": True, "seed": 1, "top_p": 0.5, "user": "me", "n": 1, "tools": None}
        status, _ = await call(engine, CHAT, {"messages": USER, **harmless})
        assert status == 200

    @pytest.mark.parametrize(
        ("path", "body"),
        [(CHAT, {"messages": USER, "model": "big"}), ("/v1/embeddings", {"input": "x"}), ("/v1/chat", None)],
    )
    async def test_what_is_not_there_is_not_found(
        self, engine: SimulatedEngine, path: str, body: dict[str, Any] | None
    ) -> None:
        status, answer = await call(engine, path, body)
        assert (status, answer["error"]["type"]) == (404, "NotFoundError")

    async def test_an_engine_without_names_answers_to_any(self) -> None:
        body = {"messages": USER, "model": "whatever"}
        status, answer = await call(SimulatedEngine(QUICK), CHAT, body)
        assert (status, answer["model"]) == (200, "whatever")

    @pytest.mark.parametrize(("marker", "status"), [("[[error]]", 400), ("[[busy]]", 503)])
    async def test_markers_are_refusals(self, engine: SimulatedEngine, marker: str, status: int) -> None:
        given, answer = await call(engine, CHAT, {"messages": [{"role": "user", "content": marker}]})
        assert (given, answer["error"]["code"]) == (status, status)


class TestPriority:
    async def test_a_call_goes_ahead_of_requests_that_wait(self) -> None:
        engine = SimulatedEngine(SimTiming(ttft_ms=1, tpot_ms=0, slots=1), MODELS)
        ended: list[str] = []

        async def request(number: int) -> None:
            await engine.generate(Prompt("r", {"messages": USER, "max_tokens": 9}))
            ended.append(f"request {number}")

        async def interactive() -> None:
            await call(engine, CHAT, {"messages": USER})
            ended.append("call")

        requests = [asyncio.create_task(request(number)) for number in range(4)]
        await asyncio.sleep(0)
        await asyncio.gather(asyncio.create_task(interactive()), *requests)
        assert ended == ["request 0", "call", "request 1", "request 2", "request 3"]

    async def test_a_stream_that_is_closed_frees_its_slot(self) -> None:
        engine = SimulatedEngine(SimTiming(ttft_ms=0, tpot_ms=0, slots=1), MODELS)
        reply = await engine.call(Call("POST", CHAT, {"messages": USER, "stream": True}))
        await anext(reply.chunks)
        await reply.chunks.aclose()
        status, _ = await asyncio.wait_for(call(engine, CHAT, {"messages": USER}), 5)
        assert status == 200

    async def test_a_slot_handed_to_one_that_is_canceled_is_not_lost(self) -> None:
        slots = Slots(1)
        order: list[str] = []

        async def hold(name: str, *, urgent: bool) -> None:
            async with slots.one(urgent=urgent):
                order.append(name)

        async with slots.one():
            canceled = asyncio.create_task(hold("canceled", urgent=True))
            waiting = asyncio.create_task(hold("waiting", urgent=False))
            await asyncio.sleep(0)
        # The slot is the first one's now, which has not run since.
        canceled.cancel()
        await asyncio.wait_for(waiting, 5)
        assert (order, canceled.cancelled()) == (["waiting"], True)
