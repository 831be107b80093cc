"""What every engine promises, on the simulated one and on the fake; and what the simulated one promises beyond it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from shared.core.structured import schema_format
from shared.engines.simulated import SimTiming, SimulatedEngine, answer, duration_s, output_tokens
from shared.errors import EngineBusy, RequestRejected
from shared.ports.engine import Engine, Prompt
from tests.conftest import ROOT
from tests.contract.engine_suite import EngineSuite, ToolSuite
from tests.fakes import ScriptedEngine

QUICK = SimTiming(ttft_ms=0, tpot_ms=0, slots=4)


def params(text: str, **others: Any) -> dict[str, Any]:
    fields = {"messages": [{"role": "user", "content": text}], "max_tokens": 2048, "temperature": 0.2}
    return {**fields, **others}


def prompt(text: str, **others: Any) -> Prompt:
    return Prompt("r1", params(text, **others))


@pytest.fixture(params=["simulated", "scripted"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    built = SimulatedEngine(QUICK) if request.param == "simulated" else ScriptedEngine()
    built.start()
    yield built
    built.close()


class TestAnyEngine(EngineSuite):
    pass


class TestSimulatedTools(ToolSuite):
    @pytest.fixture
    def engine(self) -> Engine:
        return SimulatedEngine(QUICK)

    async def test_it_calls_what_the_last_message_names_and_each_prompt_has_its_own_ids(
        self, engine: Engine
    ) -> None:
        tools = [
            {"name": name, "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
            for name in ("find", "find_all", "close")
        ]
        done = await engine.generate(prompt("Please find_all, then close.", tools=tools))
        assert [call.name for call in done.calls] == ["find_all", "close"]
        assert done.output_tokens == len(json.dumps([{"name": "", "arguments": {"a": ""}}] * 2).split())
        other = await engine.generate(prompt("Please close.", tools=tools))
        assert len({call.id for call in (*done.calls, *other.calls)}) == 3
        assert (await engine.generate(prompt("Please close.", tools=tools))).calls == other.calls
        single = {"type": "auto", "disable_parallel_tool_use": True}
        done = await engine.generate(prompt("Please find_all, then close.", tools=tools, tool_choice=single))
        assert [call.name for call in done.calls] == ["find_all"]
        assert (await engine.generate(prompt("Nothing.", tools=tools))).stop_reason == "end_turn"

    async def test_an_urgent_prompt_goes_before_those_that_wait(self) -> None:
        engine = SimulatedEngine(SimTiming(ttft_ms=0, tpot_ms=0, slots=1))
        done: list[str] = []

        async def ask(text: str, *, urgent: bool) -> None:
            await engine.generate(Prompt(text, params(text), urgent))
            done.append(text)

        running = asyncio.create_task(ask("[[stall]]", urgent=False))
        waiting = [asyncio.create_task(ask(text, urgent=text == "urgent")) for text in ("patient", "urgent")]
        for _ in range(5):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert done == ["urgent", "patient"]

    async def test_invalid_gives_an_input_that_does_not_fit(self, engine: Engine) -> None:
        tool = {"name": "rate", "input_schema": {"properties": {"n": {"type": "integer"}}}}
        done = await engine.generate(prompt("[[invalid]]", tools=[tool], tool_choice={"type": "any"}))
        assert [call.input for call in done.calls] == [{"n": {"invalid": True}}]


class TestText:
    async def test_the_same_prompt_gives_the_same_answer_from_any_engine(self) -> None:
        first = await SimulatedEngine(QUICK).generate(prompt("hello", system="be brief"))
        again = await SimulatedEngine(QUICK).generate(prompt("hello", system="be brief"))
        assert first == again

    async def test_other_prompts_give_other_answers(self) -> None:
        engine = SimulatedEngine(QUICK)
        answers = {(await engine.generate(prompt(f"hello {n}"))).text for n in range(50)}
        assert len(answers) == 50

    async def test_the_system_text_is_part_of_the_prompt(self) -> None:
        engine = SimulatedEngine(QUICK)
        one, two = [await engine.generate(prompt("hello", system=text)) for text in ("a", "a" * 400)]
        assert one.text != two.text
        assert two.input_tokens - one.input_tokens == pytest.approx(100, abs=1)

    @pytest.mark.parametrize("text", ["", "é日本🙂", "\ud800 alone", "x" * 100_000])
    async def test_any_text_is_answered(self, text: str) -> None:
        assert (await SimulatedEngine(QUICK).generate(prompt(text))).input_tokens >= 1

    async def test_the_token_count_is_that_of_the_text(self) -> None:
        engine = SimulatedEngine(QUICK)
        for number in range(50):
            done = await engine.generate(prompt(f"hello {number}"))
            assert done.output_tokens == len(done.text.split())
            assert 32 <= done.output_tokens <= 128
            assert done.stop_reason == "end_turn"

    async def test_max_tokens_cuts_the_answer_and_says_so(self) -> None:
        done = await SimulatedEngine(QUICK).generate(prompt("hello", max_tokens=5))
        assert (done.output_tokens, len(done.text.split()), done.stop_reason) == (5, 5, "max_tokens")
        assert answer(params("hello")).startswith(done.text)


NUMBER = schema_format({"properties": {"n": {"type": "integer", "minimum": 7}}, "required": ["n"]})


class TestJson:
    async def test_a_schema_gives_json_that_it_accepts_and_honest_counts(self) -> None:
        done = await SimulatedEngine(QUICK).generate(prompt("hello", response_format=NUMBER))
        assert json.loads(done.text) == {"n": 7}
        assert done.output_tokens == len(done.text.split()) == 2
        assert done.stop_reason == "end_turn"

    async def test_a_json_object_differs_from_prompt_to_prompt(self) -> None:
        engine = SimulatedEngine(QUICK)
        wanted = {"type": "json_object"}
        texts = {(await engine.generate(prompt(f"{n}", response_format=wanted))).text for n in range(20)}
        assert all(isinstance(json.loads(text), dict) for text in texts)
        assert len(texts) > 5

    async def test_text_asked_for_is_text(self) -> None:
        done = await SimulatedEngine(QUICK).generate(prompt("hello", response_format={"type": "text"}))
        assert done.text == answer(params("hello"))

    async def test_max_tokens_cuts_json_too(self) -> None:
        done = await SimulatedEngine(QUICK).generate(prompt("hello", response_format=NUMBER, max_tokens=1))
        assert (done.text, done.output_tokens, done.stop_reason) == ('{"n":', 1, "max_tokens")


class TestTiming:
    def test_a_request_takes_its_first_token_and_then_each_token(self) -> None:
        timing = SimTiming(ttft_ms=50, tpot_ms=5, slots=1)
        tokens = output_tokens(params("hello"))
        assert duration_s(params("hello"), timing) == pytest.approx(0.05 + 0.005 * tokens)

    async def test_no_more_than_its_slots_run_at_once(self) -> None:
        engine = SimulatedEngine(SimTiming(ttft_ms=40, tpot_ms=0, slots=3))
        began_s = monotonic()
        await asyncio.gather(*(engine.generate(prompt(f"hello {number}")) for number in range(7)))
        assert monotonic() - began_s >= 0.118

    async def test_a_cancelled_request_frees_its_slot(self) -> None:
        engine = SimulatedEngine(SimTiming(ttft_ms=0, tpot_ms=0, slots=1))
        stalled = asyncio.create_task(engine.generate(prompt("[[stall]]")))
        waiting = asyncio.create_task(engine.generate(prompt("hello")))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        stalled.cancel()
        assert (await asyncio.wait_for(waiting, 20)).text

    async def test_a_failed_request_frees_its_slot(self) -> None:
        engine = SimulatedEngine(SimTiming(ttft_ms=0, tpot_ms=0, slots=1))
        for _ in range(3):
            with pytest.raises(EngineBusy):
                await engine.generate(prompt("[[busy]]"))
        assert (await engine.generate(prompt("hello"))).text


class TestMarkers:
    async def test_error_rejects_for_good(self) -> None:
        with pytest.raises(RequestRejected) as caught:
            await SimulatedEngine(QUICK).generate(prompt("please [[error]]"))
        assert not caught.value.retryable

    async def test_busy_once_is_busy_once_for_each_prompt(self) -> None:
        engine = SimulatedEngine(QUICK)
        for text in ("a [[busy-once]]", "b [[busy-once]]"):
            with pytest.raises(EngineBusy) as caught:
                await engine.generate(prompt(text))
            assert caught.value.retryable
            assert (await engine.generate(prompt(text))).text

    async def test_invalid_answers_with_json_that_was_not_asked_for_each_time(self) -> None:
        engine = SimulatedEngine(QUICK)
        for _ in range(2):
            done = await engine.generate(prompt("[[invalid]]", response_format=NUMBER))
            assert json.loads(done.text) == {"n": {"invalid": True}}
        done = await engine.generate(prompt("[[invalid]]", response_format={"type": "json_object"}))
        assert isinstance(json.loads(done.text), list)

    async def test_invalid_once_is_invalid_once_for_each_prompt(self) -> None:
        engine = SimulatedEngine(QUICK)
        for text in ("a [[invalid-once]]", "b [[invalid-once]]"):
            answers = [await engine.generate(prompt(text, response_format=NUMBER)) for _ in range(3)]
            assert [json.loads(done.text)["n"] for done in answers] == [{"invalid": True}, 7, 7]

    async def test_only_the_last_message_is_looked_at(self) -> None:
        messages = [
            {"role": "user", "content": "[[error]]"},
            {"role": "assistant", "content": "[[error]]"},
            {"role": "user", "content": "hello"},
        ]
        done = await SimulatedEngine(QUICK).generate(prompt("", messages=messages, system="[[error]]"))
        assert done.text

    def test_kill_kills_the_process(self) -> None:
        code = (
            "import asyncio\n"
            "from shared.engines.simulated import SimTiming, SimulatedEngine\n"
            "from shared.ports.engine import Prompt\n"
            "engine = SimulatedEngine(SimTiming(0, 0, 1))\n"
            "params = {'messages': [{'role': 'user', 'content': '[[kill]]'}], 'max_tokens': 9}\n"
            "asyncio.run(engine.generate(Prompt('r', params)))\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), timeout=30, check=False
        )
        assert ended.returncode == -signal.SIGKILL
