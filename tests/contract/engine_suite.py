"""What every engine promises for the requests of a batch, whatever it stands on.

Inherit `EngineSuite` in a test class and give it the fixture `engine`: one that was started.
"""

import asyncio
import itertools
from typing import Any

import pytest

from shared.errors import RequestRejected
from shared.ports.engine import Completion, Engine, Prompt

STOP_REASONS = ("end_turn", "max_tokens")
MAX_TOKENS = 16
_numbers = itertools.count()


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
