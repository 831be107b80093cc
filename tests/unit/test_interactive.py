"""Interactive jobs: which call an input makes of the engine, and what the handler yields of its answer."""

import asyncio
import json
from typing import Any

import pytest

from handlers.catalog import CARDS
from handlers.interactive import REFUSAL_MAX_CHARS, chunks, is_interactive
from shared.errors import EngineBusy, EngineDead, InvalidRequest, OutputInvalid, RequestRejected, TooLarge
from shared.ports.engine import Call
from tests.fakes import ScriptedEngine, ScriptedReply

[CARD, *_] = CARDS
CHAT = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
DEFAULTS = {"max_tokens": 100, "temperature": 1.0, "top_p": 1.0, "stream": False}
ERROR = b'{"error": {"message": "n\xc3\xb6", "type": "NotFoundError", "param": null, "code": 404}}'


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def yielded(engine: ScriptedEngine, job_input: dict[str, Any], *replies: ScriptedReply) -> list[Any]:
    engine.replies.extend(replies)
    return [chunk async for chunk in chunks(engine, CARD, job_input)]


@pytest.mark.parametrize(
    ("job_input", "wanted"),
    [
        ({"openai_route": "/v1/models"}, True),
        ({"openai_input": {}}, True),
        ({"prompt": "hello"}, True),
        ({"messages": []}, True),
        ({"message": {}}, True),
        ({"batch": "batch_1", "shard": 0, "attempt": 1}, False),
        ({}, False),
    ],
)
def test_calls_are_told_from_shards(job_input: dict[str, Any], wanted: bool) -> None:
    assert is_interactive(job_input) is wanted


class TestOpenAI:
    @pytest.mark.parametrize(
        "route",
        [
            "/v1/chat/completions",
            "v1/chat/completions",
            "/openai/v1/chat/completions",
            "chat/completions",
            None,
        ],
    )
    async def test_a_route_may_be_written_in_several_ways(
        self, engine: ScriptedEngine, route: str | None
    ) -> None:
        asked = {"openai_route": route} if route else {}
        await yielded(engine, {**asked, "openai_input": ASKED}, ScriptedReply([b"{}"]))
        assert engine.calls == [Call("POST", CHAT, ASKED)]

    @pytest.mark.parametrize("body", [{}, {"openai_input": {}}, {"openai_input": None}])
    async def test_the_models_are_got(self, engine: ScriptedEngine, body: dict[str, Any]) -> None:
        await yielded(engine, {"openai_route": "/v1/models", **body}, ScriptedReply([b"{}"]))
        assert engine.calls == [Call("GET", "/v1/models")]

    @pytest.mark.parametrize("fields", [{"openai_route": 5}, {"openai_input": "text"}, {"openai_input": [1]}])
    async def test_an_input_of_the_wrong_shape_is_refused_by_its_field(
        self, engine: ScriptedEngine, fields: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await yielded(engine, fields)
        assert caught.value.param == next(iter(fields))

    async def test_the_body_is_handed_on_as_it_is(self, engine: ScriptedEngine) -> None:
        body = {"id": "x", "choices": [{"n": 1}], "text": "né"}
        raw = json.dumps(body, ensure_ascii=False).encode()
        [chunk] = await yielded(engine, {"openai_input": ASKED}, ScriptedReply([raw[:-4], raw[-4:]]))
        assert chunk == body

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_refusal_is_an_error_with_exactly_the_engines_text(
        self, engine: ScriptedEngine, stream: bool
    ) -> None:
        asked = {"openai_input": {**ASKED, "stream": stream}}
        assert await yielded(engine, asked, ScriptedReply([ERROR], status_code=404)) == [
            {"error": ERROR.decode()}
        ]

    async def test_a_refusal_without_a_body_still_fails_the_job(self, engine: ScriptedEngine) -> None:
        [chunk] = await yielded(engine, {"openai_input": ASKED}, ScriptedReply([], status_code=502))
        assert "502" in chunk["error"]

    async def test_a_stream_is_text_and_all_of_it(self, engine: ScriptedEngine) -> None:
        events = [event({"text": f"né {n}"}) for n in range(50)] + [b"data: [DONE]\n\n"]
        asked = {"openai_input": {**ASKED, "stream": True}}
        pieces = await yielded(engine, asked, ScriptedReply(events, streaming=True))
        assert "".join(pieces).encode() == b"".join(events)

    async def test_the_first_event_is_out_before_the_second_is_there(self, engine: ScriptedEngine) -> None:
        more = asyncio.Event()
        reply = ScriptedReply([event("first"), more, event("second")], streaming=True)
        engine.replies.append(reply)
        answer = chunks(engine, CARD, {"openai_input": {**ASKED, "stream": True}})
        assert await anext(answer) == event("first").decode()
        assert not engine.closed
        more.set()
        assert [piece async for piece in answer] == [event("second").decode()]

    async def test_closing_early_closes_the_engines_answer(self, engine: ScriptedEngine) -> None:
        reply = ScriptedReply([event("first"), asyncio.Event()], streaming=True)
        engine.replies.append(reply)
        answer = chunks(engine, CARD, {"openai_input": {**ASKED, "stream": True}})
        await anext(answer)
        await answer.aclose()
        assert engine.closed == [reply]

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_a_canceled_job_closes_the_engines_answer(
        self, engine: ScriptedEngine, streaming: bool
    ) -> None:
        reply = ScriptedReply([asyncio.Event()], streaming=streaming)
        job = asyncio.create_task(yielded(engine, {"openai_input": ASKED}, reply))
        for _ in range(5):
            await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert engine.closed == [reply]

    async def test_an_engine_that_dies_in_a_stream_fails_it_behind_what_was_said(
        self, engine: ScriptedEngine
    ) -> None:
        engine.replies.append(ScriptedReply([event("first"), EngineDead("it died")], streaming=True))
        answer = chunks(engine, CARD, {"openai_input": {**ASKED, "stream": True}})
        assert await anext(answer) == event("first").decode()
        with pytest.raises(EngineDead):
            await anext(answer)


class TestPlainInput:
    @pytest.mark.parametrize(
        ("fields", "path", "body"),
        [
            ({"prompt": "hi"}, "/v1/completions", {"prompt": "hi"}),
            (
                {"prompt": "hi", "apply_chat_template": True},
                CHAT,
                {"messages": [{"role": "user", "content": "hi"}]},
            ),
            ({"messages": ASKED["messages"]}, CHAT, {"messages": ASKED["messages"]}),
            ({"messages": ASKED["messages"], "prompt": "hi"}, CHAT, {"messages": ASKED["messages"]}),
            ({"prompt": "hi", "max_batch_size": 20}, "/v1/completions", {"prompt": "hi"}),
            (
                {"prompt": "hi", "sampling_params": {"max_tokens": 7, "stop": ["."], "temperature": 0}},
                "/v1/completions",
                {"prompt": "hi", "max_tokens": 7, "stop": ["."], "temperature": 0},
            ),
        ],
    )
    async def test_it_becomes_a_call(
        self, engine: ScriptedEngine, fields: dict[str, Any], path: str, body: dict[str, Any]
    ) -> None:
        whole = b'{"choices": [{"text": "ok"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}'
        answer = await yielded(engine, fields, ScriptedReply([whole]))
        assert engine.calls == [Call("POST", path, {**DEFAULTS, **body})]
        assert answer == [{"choices": [{"tokens": ["ok"]}], "usage": {"input": 3, "output": 4}}]

    async def test_each_piece_of_a_stream_has_its_tokens_and_the_counts_so_far(
        self, engine: ScriptedEngine
    ) -> None:
        def said(content: str, count: int, end: str | None = None) -> bytes:
            choice = {"index": 0, "delta": {"content": content}, "finish_reason": end}
            return event({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": count}})

        more = asyncio.Event()
        parts: list[bytes | asyncio.Event] = [
            said("", 0) + said("a", 1),
            more,
            said(" b", 2),
            said("", 3, "stop"),
            b"data: [DONE]\n\n",
        ]
        engine.replies.append(ScriptedReply(parts, streaming=True))
        answer = chunks(engine, CARD, {"messages": ASKED["messages"], "stream": True})
        assert await anext(answer) == {"choices": [{"tokens": ["a"]}], "usage": {"input": 9, "output": 1}}
        more.set()
        assert [piece async for piece in answer] == [
            {"choices": [{"tokens": [" b", ""]}], "usage": {"input": 9, "output": 3}}
        ]
        [call] = engine.calls
        assert call.body is not None
        assert call.body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}

    async def test_an_error_inside_a_stream_fails_the_job(self, engine: ScriptedEngine) -> None:
        parts = [event(json.loads(ERROR)), b"data: [DONE]\n\n"]
        [chunk] = await yielded(
            engine, {"prompt": "hi", "stream": True}, ScriptedReply(parts, streaming=True)
        )
        assert json.loads(chunk["error"]) == json.loads(ERROR)

    async def test_a_refusal_is_an_error_with_exactly_the_engines_text(self, engine: ScriptedEngine) -> None:
        [chunk] = await yielded(engine, {"prompt": "hi"}, ScriptedReply([ERROR], status_code=404))
        assert chunk == {"error": ERROR.decode()}

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"prompt": 5}, "prompt"),
            ({"prompt": None}, "prompt"),
            ({"messages": []}, "messages"),
            ({"messages": ["hi"]}, "messages[0]"),
            ({"prompt": "hi", "streaming": True}, "streaming"),
            ({"prompt": "hi", "stream": "yes"}, "stream"),
            ({"prompt": "hi", "sampling_params": {"best_of": 3}}, "sampling_params.best_of"),
            ({"prompt": "hi", "sampling_params": {"max_tokens": "7"}}, "sampling_params.max_tokens"),
        ],
    )
    async def test_a_fault_is_named_and_never_reaches_the_engine(
        self, engine: ScriptedEngine, fields: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await yielded(engine, fields)
        assert caught.value.param == param
        assert engine.calls == []


async def test_a_refusal_that_repeats_a_long_input_is_told_in_few_words(engine: ScriptedEngine) -> None:
    long = json.dumps({"error": {"message": "x" * 100_000, "code": 400}}).encode()
    [answer] = await yielded(engine, {"openai_input": ASKED}, ScriptedReply([long], 400))
    error = json.loads(answer["error"])["error"]
    assert error["code"] == 400
    assert error["message"].startswith("the engine refused with status 400")
    assert len(answer["error"]) < REFUSAL_MAX_CHARS


class TestMessage:
    def asking(self, text: str = "hello", **params: Any) -> dict[str, Any]:
        return {"message": {"params": {"messages": [{"role": "user", "content": text}], **params}}}

    async def test_it_is_answered_as_a_request_of_a_batch_is_and_goes_first(
        self, engine: ScriptedEngine
    ) -> None:
        assert await yielded(engine, self.asking(max_tokens=9)) == [
            {
                "message": {
                    "content": [{"type": "text", "text": "HELLO"}],
                    "stop_reason": "end_turn",
                    "stop_sequence": None,
                },
                "usage": {"input_tokens": 5, "output_tokens": 2},
                "model": CARD.name,
            }
        ]
        assert engine.urgent == [True]

    async def test_content_may_be_blocks(self, engine: ScriptedEngine) -> None:
        job_input = self.asking(messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}])
        [answer] = await yielded(engine, job_input)
        assert answer["message"]["content"] == [{"type": "text", "text": "HELLO"}]

    async def test_a_passing_fault_is_tried_again(self, engine: ScriptedEngine) -> None:
        engine.faults["hello"] = [EngineBusy("full")]
        [answer] = await yielded(engine, self.asking())
        assert answer["message"]["stop_reason"] == "end_turn"
        assert engine.prompts == ["hello", "hello"]

    async def test_an_answer_that_is_not_what_was_asked_for_fails(self, engine: ScriptedEngine) -> None:
        with pytest.raises(OutputInvalid):
            await yielded(engine, self.asking(response_format={"type": "json_object"}))

    @pytest.mark.parametrize("fault", [RequestRejected("too long"), EngineDead("it died")], ids=str)
    async def test_what_the_engine_raises_is_raised(self, engine: ScriptedEngine, fault: Exception) -> None:
        engine.faults["hello"] = [fault]
        with pytest.raises(type(fault)):
            await yielded(engine, self.asking())

    @pytest.mark.parametrize(
        ("job_input", "param"),
        [
            ({"message": {}}, "message.params"),
            ({"message": []}, "message"),
            ({"message": {"params": {}}}, "message.params.messages"),
            ({"message": {"params": {"messages": []}}}, "message.params.messages"),
            (
                {"message": {"params": {"messages": [{"role": "system", "content": "x"}]}}},
                "message.params.messages[0].role",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    async def test_what_is_no_request_is_refused_by_its_field(
        self, engine: ScriptedEngine, job_input: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await yielded(engine, job_input)
        assert caught.value.param == param
        assert engine.prompts == []

    async def test_limits_are_those_of_a_request_of_a_batch(self, engine: ScriptedEngine) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await yielded(engine, self.asking(max_tokens=CARD.context_tokens + 1))
        assert caught.value.param == "message.params.max_tokens"
        with pytest.raises(TooLarge):
            await yielded(engine, self.asking("x" * CARD.shard_bytes))
        assert engine.prompts == []
