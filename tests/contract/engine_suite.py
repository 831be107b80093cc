"""What every engine promises for the requests of a batch, whatever it stands on.

Inherit `EngineSuite` in a test class and give it the fixture `engine`: one that was started.
"""

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from shared.errors import RequestRejected
from shared.ports.engine import Completion, Engine, Prompt

STOP_REASONS = ("end_turn", "max_tokens")
MAX_TOKENS = 16
_numbers = itertools.count()
TOOL: dict[str, Any] = {
    "name": "rate",
    "input_schema": {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["score"],
        "additionalProperties": False,
    },
}


def prompt(text: str, **params: Any) -> Prompt:
    """A request of its own, with a short answer."""
    fields = {"messages": [{"role": "user", "content": text}], "max_tokens": MAX_TOKENS, "temperature": 0.2}
    return Prompt(f"suite-{next(_numbers)}", {**fields, **params})


class EngineSuite:
    async def test_it_completes_with_text_and_counts(self, engine: Engine) -> None:
        # A model without knowledge may say nothing; of all its answers the likeliest has text.
        done = await engine.generate(prompt("hello", temperature=0))
        assert done.text
        assert min(done.input_tokens, done.output_tokens) > 0
        assert done.stop_reason in STOP_REASONS

    async def test_a_longer_prompt_counts_more(self, engine: Engine) -> None:
        short, long = [await engine.generate(prompt(text)) for text in ("hello", "hello, " * 100)]
        assert long.input_tokens > short.input_tokens

    async def test_it_takes_more_requests_than_it_has_slots(self, engine: Engine) -> None:
        texts = [f"hello {number}" for number in range(2 * engine.slots + 1)]
        answers = await asyncio.gather(*(engine.generate(prompt(text)) for text in texts))
        assert len(answers) == len(texts)
        assert all(answer.stop_reason in STOP_REASONS for answer in answers)

    async def test_it_says_what_it_holds_and_that_it_lives(self, engine: Engine) -> None:
        assert engine.slots >= 1
        assert engine.request_s >= 0
        assert engine.alive

    @pytest.mark.parametrize("text", ["", " ", "é日本🙂", "a\x00b", "<s>[INST]"])
    async def test_any_text_is_answered_or_refused_alone(self, engine: Engine, text: str) -> None:
        odd, plain = await asyncio.gather(
            engine.generate(prompt(text)), engine.generate(prompt("hello")), return_exceptions=True
        )
        assert isinstance(odd, (Completion, RequestRejected)), odd
        assert isinstance(plain, Completion)


class ToolSuite:
    """What an engine promises that calls tools."""

    async def test_a_call_that_must_be_made_is_made_with_an_input_that_fits(self, engine: Engine) -> None:
        done = await engine.generate(
            prompt("hello", max_tokens=200, tools=[TOOL], tool_choice={"type": "tool", "name": TOOL["name"]})
        )
        [call] = done.calls
        assert (done.text, done.stop_reason, call.name) == ("", "tool_use", "rate")
        assert call.id.startswith("toolu_")
        jsonschema.validate(call.input, TOOL["input_schema"])

    async def test_no_call_is_made_where_none_may_be(self, engine: Engine) -> None:
        done = await engine.generate(prompt("rate", tools=[TOOL], tool_choice={"type": "none"}))
        assert done.calls == ()
        assert done.stop_reason in STOP_REASONS

    async def test_a_call_that_was_cut_is_none(self, engine: Engine) -> None:
        done = await engine.generate(prompt("hello", max_tokens=1, tools=[TOOL], tool_choice={"type": "any"}))
        assert (done.calls, done.stop_reason) == ((), "max_tokens")

    @pytest.mark.parametrize(
        ("params", "param"),
        [
            (
                {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
                "messages[0].content[0]",
            ),
            ({"messages": [{"role": "assistant", "content": "hello"}]}, "messages[0].role"),
            ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
            ({"thinking": {"type": "enabled"}}, "params.thinking"),
        ],
        ids=["block", "role", "tool", "thinking"],
    )
    async def test_what_it_cannot_serve_is_refused_by_its_place(
        self, engine: Engine, params: dict[str, Any], param: str
    ) -> None:
        with pytest.raises(RequestRejected) as caught:
            await engine.generate(prompt("hello", **params))
        assert caught.value.param == param

    async def test_urgent_prompts_are_answered_like_others(self, engine: Engine) -> None:
        done = await engine.generate(replace(prompt("hello"), urgent=True))
        assert done.stop_reason in STOP_REASONS
