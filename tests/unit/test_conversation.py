"""Messages as a chat template wants them, and through templates with the rules of the real models."""

from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.core.conversation import TURN_BREAK, conversation_of
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
        self._template = environment.from_string(template)

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        return self._template.render(
            messages=messages, add_generation_prompt=add_generation_prompt, bos_token="<s>", eos_token="</s>"
        )

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]

    def _refuse(self, message: str) -> None:
        raise jinja2.TemplateError(message)


def rendered(template: str, wanted: dict[str, Any]) -> str:
    return "".join(map(chr, ChatTemplate(TextTokenizer(template)).tokens(wanted)))


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
