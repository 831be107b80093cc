"""Messages as a chat template wants them, and through templates with the rules of the real models."""

import json
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.core.content import TURN_BREAK
from shared.core.conversation import TOOLS_TEXT, UNSUPPORTED, conversation_of
from shared.core.tools import Tool
from shared.engines.chat_template import ChatTemplate
from shared.errors import EngineDead, RequestRejected
from tests.vllm.templates import LLAMA, MISTRAL, MISTRAL_WITHOUT_SYSTEM


def params(*turns: tuple[str, str], system: str | None = None) -> dict[str, Any]:
    return {"system": system, "messages": [{"role": role, "content": text} for role, text in turns]}


class TextTokenizer:
    """Renders as transformers does; a token is a character."""

    def __init__(self, template: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = self._refuse
        environment.filters["tojson"] = json.dumps
        self._template = environment.from_string(template)

    def apply_chat_template(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None,
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> str:
        assert not tokenize
        return self._template.render(
            messages=messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            bos_token="<s>",
            eos_token="</s>",
        )

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]

    def _refuse(self, message: str) -> None:
        raise jinja2.TemplateError(message)


def rendered(template: str, wanted: dict[str, Any]) -> str:
    return "".join(map(chr, ChatTemplate(TextTokenizer(template)).tokens(wanted)))


CALL = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "12 degrees"}
TOOLS = [Tool("get_weather", "In a city.", {"type": "object"}, strict=False)]


def said(role: str, *content: Any) -> dict[str, Any]:
    """A message of blocks; a text stands for its block."""
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    return {"role": role, "content": blocks}


def with_tools(template: str, *messages: dict[str, Any], system: str | None = None) -> str:
    wanted = {"messages": list(messages), "system": system}
    return "".join(map(chr, ChatTemplate(TextTokenizer(template)).tokens(wanted, TOOLS)))


def llama(*turns: tuple[str, str], answer: str = "") -> str:
    text = "<s>" + "".join(
        f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>" for role, text in turns
    )
    return text + "<|start_header_id|>assistant<|end_header_id|>\n\n" + answer


ASK = ("user", "Who?")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (params(ASK), "<s>[INST] Who?[/INST]"),
        (params(ASK, system="Be brief."), "<s>[INST] Be brief.\n\nWho?[/INST]"),
        (params(ASK, ASK), "<s>[INST] Who?\n\nWho?[/INST]"),
        (params(ASK, ("assistant", "Me."), ASK), "<s>[INST] Who?[/INST] Me.</s>[INST] Who?[/INST]"),
        (params(ASK, ("assistant", "It is")), "<s>[INST] Who?[/INST] It is"),
        (params(ASK, ("assistant", "It is"), system="Be brief."), "<s>[INST] Be brief.\n\nWho?[/INST] It is"),
    ],
)
def test_a_mistral_reads_every_conversation(wanted: dict[str, Any], text: str) -> None:
    assert rendered(MISTRAL, wanted) == text


def test_a_system_text_opens_the_first_user_turn_where_the_template_has_no_such_role() -> None:
    wanted = params(ASK, ("assistant", "Me."), ASK, system="Be brief.")
    expected = "<s>[INST] Be brief.\n\nWho? [/INST]Me.</s>[INST] Who? [/INST]"
    assert rendered(MISTRAL_WITHOUT_SYSTEM, wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (params(ASK), llama(ASK)),
        (params(ASK, system=" Be brief. "), llama(("system", "Be brief."), ASK)),
        (params(ASK, ("assistant", "Me."), ASK), llama(ASK, ("assistant", "Me."), ASK)),
        # The end of the turn holds an "o" and an "i" as well.
        (params(ASK, ("assistant", "o")), llama(ASK, answer="o")),
    ],
)
def test_a_llama_reads_every_conversation(wanted: dict[str, Any], text: str) -> None:
    assert rendered(LLAMA, wanted) == text


@pytest.mark.parametrize("template", [MISTRAL, MISTRAL_WITHOUT_SYSTEM, LLAMA])
def test_a_conversation_that_the_assistant_begins_is_refused_by_name(template: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        rendered(template, params(("assistant", "Me."), ASK))
    assert caught.value.param == "messages[0].role"


def test_a_template_may_refuse_a_conversation_and_says_why() -> None:
    template = (
        "{% if messages | length > 2 %}{{ raise_exception('two turns at most') }}{% endif %}{{ messages }}"
    )
    with pytest.raises(RequestRejected, match="two turns at most"):
        rendered(template, params(ASK, ("assistant", "Me."), ASK))


def test_a_model_without_a_usable_template_does_not_start() -> None:
    with pytest.raises(EngineDead, match="no template for you"):
        ChatTemplate(TextTokenizer("{{ raise_exception('no template for you') }}"))


roles = st.sampled_from(["user", "assistant"])


@given(st.lists(st.tuples(roles, st.text(min_size=1)), min_size=1))
def test_turns_alternate_and_no_text_is_lost(turns: list[tuple[str, str]]) -> None:
    wanted = params(("user", "first"), *turns)
    found = conversation_of(wanted)
    assert [turn.role for turn in found.turns] == ["user", "assistant"] * (len(found.turns) // 2) + ["user"]
    texts = [turn.text for turn in found.turns] + ([found.prefill] if found.prefill else [])
    given_texts = ["first", *(text for _, text in turns)]
    assert TURN_BREAK.join(texts) == TURN_BREAK.join(given_texts)


ASKED = said("user", "Weather?")
CALLED = said("assistant", "Let me look.", CALL)


def test_blocks_of_text_are_paragraphs_of_one_turn() -> None:
    wanted = {
        "messages": [said("user", "a", "b"), said("user", "c")],
        "system": [{"type": "text", "text": "s"}],
    }
    assert conversation_of(wanted).messages(fold_system=False) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a\n\nb\n\nc"},
    ]


def test_calls_and_results_come_in_the_shape_of_templates() -> None:
    [asked, called, result, more] = conversation_of(
        {"messages": [ASKED, CALLED, said("user", RESULT, "And now?")]}
    ).messages(fold_system=False)
    assert (asked, more) == (
        {"role": "user", "content": "Weather?"},
        {"role": "user", "content": "And now?"},
    )
    [call] = called["tool_calls"]
    assert called["content"] == "Let me look."
    assert call["function"] == {"name": "get_weather", "arguments": {"city": "Rome"}}
    assert len(call["id"]) == 9
    assert result == {
        "role": "tool",
        "tool_call_id": call["id"],
        "name": "get_weather",
        "content": "12 degrees",
    }


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\n\nb"),
        ({"content": "no such city", "is_error": True}, "Error: no such city"),
        ({"content": None}, ""),
    ],
    ids=["blocks", "error", "nothing"],
)
def test_what_a_tool_answered_is_text(result: dict[str, Any], text: str) -> None:
    found = conversation_of({"messages": [ASKED, CALLED, said("user", {**RESULT, **result})]})
    assert [one.text for one in found.turns[-1].results] == [text]


@pytest.mark.parametrize(
    ("messages", "param", "told"),
    [
        ([said("user", "a", {"type": "image"})], "messages[0].content[1]", "image blocks are not supported"),
        ([said("user", CALL)], "messages[0].content[0]", "belong to the assistant"),
        ([ASKED, said("assistant", RESULT)], "messages[1].content[0]", "belong to the user"),
        ([ASKED, CALLED], "messages[1]", "has no tool_result"),
        ([ASKED, CALLED, said("user", "a")], "messages[2]", "has no tool_result"),
        ([ASKED, CALLED, said("assistant", CALL)], "messages[2].content[0].id", "the same id"),
        ([said("user", RESULT)], "messages[0].content[0].tool_use_id", "not the id of a tool_use"),
        ([ASKED, CALLED, said("user", RESULT, RESULT)], "messages[2].content[1].tool_use_id", "waits"),
        ([ASKED, CALLED, said("user", "a", RESULT)], "messages[2].content[1]", "before the text"),
        (
            [ASKED, CALLED, said("user", "a"), said("user", RESULT)],
            "messages[3].content[0]",
            "before the text",
        ),
        (
            [ASKED, CALLED, said("user", {**RESULT, "content": [{"type": "image"}]})],
            "messages[2].content[0].content[0]",
            "image blocks are not supported",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_conversation_is_refused_by_its_place(
    messages: list[dict[str, Any]], param: str, told: str
) -> None:
    with pytest.raises(RequestRejected) as caught:
        conversation_of({"messages": messages})
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, ["something"]) for name in UNSUPPORTED), ("thinking", {"type": "enabled", "budget_tokens": 9})],
)
def test_what_would_change_the_answer_and_is_not_there_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestRejected) as caught:
        conversation_of({"messages": [ASKED], name: value})
    assert caught.value.param == f"params.{name}"


@pytest.mark.parametrize("value", [None, {"type": "disabled"}])
def test_thinking_may_be_off(value: Any) -> None:
    assert conversation_of({"messages": [ASKED], "thinking": value}).turns


MISTRAL_TOOLS = (
    '[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "get_weather", "description": "In a city.",'
    ' "parameters": {"type": "object"}}}][/AVAILABLE_TOOLS]'
)


def test_mistral_reads_tools_in_its_own_tokens() -> None:
    assert with_tools(MISTRAL, ASKED, system="Be brief.") == (
        f"<s>{MISTRAL_TOOLS}[INST] Be brief.\n\nWeather?[/INST]"
    )


def test_mistral_reads_a_call_its_result_and_what_is_said_behind_it_as_part_of_the_result() -> None:
    text = with_tools(MISTRAL, ASKED, CALLED, said("user", RESULT, "In short, please."), system="Be brief.")
    head, _, tail = text.partition("[TOOL_CALLS] ")
    assert head == f"<s>{MISTRAL_TOOLS}[INST] Be brief.\n\nWeather?[/INST]"
    call_id = tail.partition('"id": "')[2][:9]
    assert tail == (
        f'[{{"name": "get_weather", "arguments": {{"city": "Rome"}}, "id": "{call_id}"}}]</s>'
        f'[TOOL_RESULTS] {{"content": 12 degrees\n\nIn short, please., "call_id": "{call_id}"}}[/TOOL_RESULTS]'
    )


@pytest.mark.parametrize("template", [LLAMA, MISTRAL_WITHOUT_SYSTEM], ids=["llama", "mistral"])
def test_a_template_without_tools_reads_them_as_text(template: str) -> None:
    text = with_tools(template, ASKED, CALLED, said("user", RESULT, "In short."), system="Be brief.")
    offered = '{"name": "get_weather", "description": "In a city.", "parameters": {"type": "object"}}'
    assert f"{TOOLS_TEXT}\n\n{offered}\n\nBe brief." in text
    assert 'Let me look.\n\n{"name": "get_weather", "parameters": {"city": "Rome"}}' in text
    assert "Result of get_weather:\n12 degrees\n\nIn short." in text
