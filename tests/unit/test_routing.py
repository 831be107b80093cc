"""A request goes where its hint says, else its stage, else the model it names."""

from typing import Any

import pytest

from handlers.catalog import CARDS
from shared.core.requests import CreateInput, parse
from shared.core.routing import DEFAULT_STAGES, Router
from shared.errors import InvalidRequest

ROUTER = Router(CARDS, {**DEFAULT_STAGES, "summary": "mistral"})


def route(
    stage: str | None,
    *,
    hint: str | None = None,
    own_stage: str | None = None,
    model: str | None = None,
    **params: Any,
) -> str:
    named = {} if model is None else {"model": model}
    request = {
        "custom_id": "a",
        "params": {"messages": [{"role": "user", "content": "hi"}], **named, **params},
        "metadata": {"model_hint": hint, "stage": own_stage},
    }
    wanted = parse(CreateInput, {"operation": "create", "requests": [request], "stage": stage})
    return ROUTER.route(wanted.stage, 4, wanted.requests[0]).name


@pytest.mark.parametrize(
    ("stage", "model"),
    [
        ("sales_intel", "llama-70b"),
        ("polish", "llama-70b"),
        ("subject", "mistral"),
        ("email", "mistral"),
        ("summary", "mistral"),
    ],
)
def test_a_stage_has_its_model(stage: str, model: str) -> None:
    assert route(stage) == model


def test_the_hint_wins_over_stage_and_model() -> None:
    assert route("email", hint="llama-70b", model="mistral") == "llama-70b"
    assert route("sales_intel", hint="mistral") == "mistral"


def test_a_requests_own_stage_wins_over_its_batchs() -> None:
    assert route("email", own_stage="polish") == "llama-70b"
    assert route("polish", own_stage="email", model="llama-70b") == "mistral"
    assert route("polish", own_stage="email", hint="llama-70b") == "llama-70b"
    assert route("polish", own_stage="no_such_stage", model="mistral") == "mistral"


def test_the_stage_wins_over_the_model() -> None:
    assert route("email", model="llama-70b") == "mistral"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("mistral", "mistral"),
        ("llama-70b", "llama-70b"),
        ("llama", "llama-70b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
        ("claude-haiku-4-5", "mistral"),
        ("claude-3-5-haiku-latest", "mistral"),
        ("claude-sonnet-4-5", "llama-70b"),
        ("claude-opus-4-1", "llama-70b"),
    ],
)
def test_a_model_is_found_by_name_and_alias(name: str, model: str) -> None:
    assert route(None, model=name) == model
    assert route("no_such_stage", model=name) == model
    assert route(None, hint=name) == model


@pytest.mark.parametrize(
    ("stage", "names", "param"),
    [
        ("polsh", {}, "stage"),
        (None, {}, "stage"),
        ("email", {"own_stage": "polsh"}, "requests[4].metadata.stage"),
        ("email", {"hint": "gpt-4"}, "requests[4].metadata.model_hint"),
        (None, {"model": "gpt-4"}, "requests[4].params.model"),
    ],
)
def test_an_unknown_name_is_named(stage: str | None, names: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        route(stage, **names)
    assert caught.value.param == param
    assert (next(iter(names.values()), None) or stage or "required") in caught.value.message


def test_more_tokens_than_the_model_has_are_refused() -> None:
    assert route("email", max_tokens=8192) == "mistral"
    with pytest.raises(InvalidRequest, match="at most 8192 for mistral") as caught:
        route("email", max_tokens=8193)
    assert caught.value.param == "requests[4].params.max_tokens"
