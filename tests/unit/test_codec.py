"""The stored form of payloads is small, and broken ones are told apart."""

import pytest

from shared.core import codec


def test_a_payload_of_like_requests_is_small() -> None:
    requests = [
        {"custom_id": f"lead_{n}", "params": {"system": "You write e-mail. " * 20}} for n in range(32)
    ]
    assert len(codec.encode(requests)) < 1500


def test_a_list_of_texts_and_the_list_itself_are_stored_alike() -> None:
    assert codec.encode_items(['{"a":1}', "2"]) == codec.encode([{"a": 1}, 2])
    assert codec.decode(codec.encode_items([])) == []


@pytest.mark.parametrize("data", [b"", b"not ours", codec.encode({"a": 1})[:-3]])
def test_what_is_broken_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a payload"):
        codec.decode(data)
