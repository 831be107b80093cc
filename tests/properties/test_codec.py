"""Payloads come back as they were, whatever text is in them; what is not a payload is told apart."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core import codec

# Lone surrogates too: a prompt may hold half of an emoji. (Two halves side by side are one character to JSON.)
texts = st.text(st.characters(codec=None))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@given(values)
def test_any_json_survives(value: Any) -> None:
    assert codec.decode(codec.encode(value)) == as_json(value)


@given(st.lists(values, max_size=8))
def test_a_list_from_the_texts_of_its_items_is_that_list(items: list[Any]) -> None:
    assert codec.decode(codec.encode_items([json.dumps(item) for item in items])) == as_json(items)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff\x00\u2028"])
def test_lone_surrogates_survive(text: str) -> None:
    assert codec.decode(codec.encode([text])) == [text]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_payload_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (every way of being broken)
        codec.decode(data)


@given(values, st.data())
def test_a_payload_that_was_cut_short_is_a_value_error(value: Any, data: st.DataObject) -> None:
    whole = codec.encode(value)
    with pytest.raises(ValueError):  # noqa: PT011
        codec.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
