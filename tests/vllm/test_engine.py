"""vLLM in this process, on the tiny Llama whose files do not say that `<|eot_id|>` ends an answer."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from transformers import AutoTokenizer

from handlers.llama.model import CARD
from shared.engines.vllm_engine import VllmEngine
from shared.errors import EngineDead, RequestRejected
from shared.ports.engine import Engine
from tests.contract.engine_suite import EngineSuite, ToolSuite, prompt
from tests.flow.cloud import eventually
from tests.vllm.conftest import PATIENCE_S, SPECIAL_TOKEN, TICKET, json_format, unstarted_engine
from tests.vllm.local import MODELS

MODEL = MODELS / "llama-one-end"
LONG = {"min_tokens": 4000, "max_tokens": 4000}

# An engine belongs to the event loop that first called it.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        started = unstarted_engine(CARD, MODEL, patch)
        started.start()
        yield started
        started.close()


class TestVllmEngine(EngineSuite, ToolSuite):
    async def test_the_tokens_it_counts_are_those_of_the_template(self, engine: Engine) -> None:
        done = await engine.generate(prompt("Write to Ada.", system="Be brief.", min_tokens=9, max_tokens=9))
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write to Ada."}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text.count("<|begin_of_text|>") == 1
        assert done.input_tokens == len(tokenizer.encode(text, add_special_tokens=False))
        assert (done.output_tokens, done.stop_reason) == (9, "max_tokens")

    async def test_a_turn_ends_at_its_token_though_the_models_files_do_not_say_so(
        self, engine: Engine
    ) -> None:
        answers = await asyncio.gather(
            *(engine.generate(prompt(f"hello {n}", max_tokens=4000)) for n in range(20))
        )
        assert {answer.stop_reason for answer in answers} == {"end_turn"}
        assert not [answer.text for answer in answers if SPECIAL_TOKEN.search(answer.text)]

    async def test_a_stop_sequence_ends_the_answer_and_is_named(self, engine: Engine) -> None:
        # The end of a turn does not count, so that there is text of some length, whatever it says.
        sampling = {"seed": 7, "max_tokens": 40, "ignore_eos": True}
        whole = (await engine.generate(prompt("hello", **sampling))).text
        middle = whole[10:16]
        cut = await engine.generate(prompt("hello", **sampling, stop_sequences=["not there", middle]))
        assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", middle)
        assert cut.text == whole.partition(middle)[0]

    async def test_a_seed_makes_an_answer_come_again(self, engine: Engine) -> None:
        sampling = {"temperature": 1.0, "min_tokens": 20, "max_tokens": 20}
        texts = [(await engine.generate(prompt("hello", seed=seed, **sampling))).text for seed in (7, 7, 8)]
        assert texts[0] == texts[1] != texts[2]

    async def test_a_prompt_longer_than_the_context_is_refused_alone_with_the_numbers(
        self, engine: Engine
    ) -> None:
        too_long, short = await asyncio.gather(
            engine.generate(prompt("word " * 20_000)),
            engine.generate(prompt("hello")),
            return_exceptions=True,
        )
        assert isinstance(too_long, RequestRejected)
        assert "8192" in too_long.message
        assert not isinstance(short, BaseException)

    async def test_an_answer_may_fill_the_context_and_no_more(self, engine: Engine) -> None:
        done = await engine.generate(prompt("word " * 1990, min_tokens=8000, max_tokens=8000))
        assert done.input_tokens + done.output_tokens == 8192
        assert done.stop_reason == "max_tokens"

    async def test_a_cancelled_request_is_aborted_in_the_engine(self, engine: Engine) -> None:
        assert isinstance(engine, VllmEngine)
        running = asyncio.create_task(engine.generate(prompt("hello", **LONG)))
        processor = engine._llm.output_processor

        async def begun() -> bool:
            return bool(processor.has_unfinished_requests())

        await eventually(begun, "the request runs", PATIENCE_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not processor.has_unfinished_requests()
        assert (await engine.generate(prompt("hello"))).output_tokens > 0


class TestStructuredOutput:
    async def test_an_answer_fits_its_schema(self, engine: Engine) -> None:
        answers = await asyncio.gather(
            *(
                engine.generate(prompt(f"hello {n}", max_tokens=400, response_format=json_format(TICKET)))
                for n in range(20)
            )
        )
        for answer in answers:
            assert answer.stop_reason == "end_turn"
            jsonschema.validate(json.loads(answer.text), TICKET)

    async def test_a_json_object_is_one(self, engine: Engine) -> None:
        kind = {"type": "json_object"}
        answers = await asyncio.gather(
            *(engine.generate(prompt(f"hello {n}", max_tokens=2000, response_format=kind)) for n in range(10))
        )
        ended = [json.loads(answer.text) for answer in answers if answer.stop_reason == "end_turn"]
        assert ended
        assert all(isinstance(value, dict) for value in ended)

    @pytest.mark.parametrize(
        "schema",
        [{"type": "no-such-type"}, {"type": "string", "pattern": "("}, {"$ref": "#/$defs/nowhere"}],
        ids=["type", "pattern", "reference"],
    )
    async def test_a_schema_that_cannot_be_is_refused_alone(
        self, engine: Engine, schema: dict[str, Any]
    ) -> None:
        bad, good = await asyncio.gather(
            engine.generate(prompt("hello", response_format=json_format(schema))),
            engine.generate(prompt("hello")),
            return_exceptions=True,
        )
        assert isinstance(bad, RequestRejected), repr(bad)
        assert not isinstance(good, BaseException)
        assert engine.alive


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"VLLM_ARGS": "--no-such-flag"}, "no-such-flag"),
        ({"MAX_MODEL_LEN": "99999"}, "99999"),
        ({"QUANTIZATION": "no-such-way"}, "no-such-way"),
    ],
    ids=["flag", "context", "quantization"],
)
async def test_a_start_that_cannot_be_says_why_in_one_line(env: dict[str, str], reason: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        engine = unstarted_engine(CARD, MODEL, patch, **env)
        with pytest.raises(EngineDead) as caught:
            engine.start()
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
