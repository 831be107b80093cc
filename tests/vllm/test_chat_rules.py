"""The two models' chat rules, by their own templates: what a conversation becomes, down to the special tokens."""

from typing import Any

import pytest
from transformers import AutoTokenizer

from shared.engines.chat_template import ChatTemplate
from shared.errors import RequestRejected
from tests.vllm.local import MODELS


def render(model: str, *turns: tuple[str, str], system: str | None = None) -> str:
    """The text that the model reads."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / model)
    messages = [{"role": role, "content": content} for role, content in turns]
    params: dict[str, Any] = {"messages": messages, "system": system}
    return str(tokenizer.decode(ChatTemplate(tokenizer).tokens(params)))


USER, ASSISTANT = ("user", "hello"), ("assistant", "yes")


def llama(*turns: tuple[str, str]) -> str:
    texts = [f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}" for role, text in turns]
    return "<|begin_of_text|>" + "<|eot_id|>".join(texts)


@pytest.mark.parametrize(
    ("turns", "system", "expected"),
    [
        ([USER], None, "<s>[INST] hello[/INST]"),
        ([USER], "Be brief.", "<s>[INST] Be brief.\n\nhello[/INST]"),
        ([USER, ASSISTANT, ("user", "more")], None, "<s>[INST] hello[/INST] yes</s>[INST] more[/INST]"),
        (
            [USER, ASSISTANT, ("user", "more")],
            "Be brief.",
            "<s>[INST] hello[/INST] yes</s>[INST] Be brief.\n\nmore[/INST]",
        ),
        ([USER, ("user", "more")], None, "<s>[INST] hello\n\nmore[/INST]"),
        ([USER, ASSISTANT], None, "<s>[INST] hello[/INST] yes"),
        ([USER, ASSISTANT], "Be brief.", "<s>[INST] Be brief.\n\nhello[/INST] yes"),
        ([USER, ASSISTANT], "hello", "<s>[INST] hello\n\nhello[/INST] yes"),
    ],
    ids=[
        "one",
        "system",
        "three",
        "system-three",
        "doubled",
        "prefilled",
        "system-prefilled",
        "system-repeated",
    ],
)
def test_mistral_reads_strictly_alternating_turns_with_the_system_text_in_the_last(
    turns: list[tuple[str, str]], system: str | None, expected: str
) -> None:
    assert render("mistral", *turns, system=system) == expected


def test_a_mistral_that_knows_no_system_role_reads_it_in_the_first_turn() -> None:
    text = render("mistral-without-system", USER, ASSISTANT, ("user", "more"), system="Be brief.")
    assert text == "<s>[INST] Be brief.\n\nhello [/INST]yes</s>[INST] more [/INST]"


@pytest.mark.parametrize(
    ("turns", "system", "expected"),
    [
        ([USER], None, [USER, ("assistant", "")]),
        ([USER], "Be brief.", [("system", "Be brief."), USER, ("assistant", "")]),
        ([USER, ("user", "more")], None, [("user", "hello\n\nmore"), ("assistant", "")]),
        ([USER, ASSISTANT], None, [USER, ASSISTANT]),
        ([("user", "  hello \n")], None, [USER, ("assistant", "")]),
    ],
    ids=["one", "system", "doubled", "prefilled", "trimmed"],
)
def test_llama_reads_each_turn_under_its_header(
    turns: list[tuple[str, str]], system: str | None, expected: list[tuple[str, str]]
) -> None:
    assert render("llama", *turns, system=system) == llama(*expected)


@pytest.mark.parametrize("model", ["mistral", "mistral-without-system", "llama"])
def test_a_conversation_that_the_assistant_begins_is_refused(model: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        render(model, ASSISTANT, USER)
    assert caught.value.param == "messages[0].role"
