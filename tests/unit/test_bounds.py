"""What every input must be before anything recursive looks at it."""

from typing import Any

import pytest

from shared.core.bounds import DEPTH_MAX, FIELDS_MAX, check_bounds, field_path
from shared.errors import CallerError, InvalidRequest, TooLarge

MAX_BYTES = 1000


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def fault(payload: dict[str, Any]) -> CallerError:
    with pytest.raises(CallerError) as caught:
        check_bounds(payload, MAX_BYTES)
    return caught.value


@pytest.mark.parametrize(
    ("payload", "param", "limit"),
    [
        ({"a": {"b": [1, float("nan")]}}, "a.b[1]", "finite"),
        ({"a": float("-inf")}, "a", "finite"),
        ({"a": 10**400}, "a", "64 bits"),
        ({"a": -(2**64)}, "a", "64 bits"),
        ({"a": ["ok", "\ud800"]}, "a[1]", "Unicode"),
        ({"a": {"\udfff": 1}}, "a.?", "Unicode"),
        ({"a": dict.fromkeys(map(str, range(FIELDS_MAX + 1)))}, "a", f"at most {FIELDS_MAX} fields"),
        ({"a": b"bytes"}, "a", "JSON"),
        ({"a": (1, 2)}, "a", "JSON"),
    ],
    ids=lambda value: f"{value!s:.40}",
)
def test_what_is_no_plain_json_is_named_with_its_limit(
    payload: dict[str, Any], param: str, limit: str
) -> None:
    error = fault(payload)
    assert isinstance(error, InvalidRequest)
    assert (error.param, error.message.split(":")[0]) == (param, param)
    assert limit in error.message


def test_a_hundred_levels_are_enough_and_one_more_is_too_many() -> None:
    check_bounds({"a": nested(DEPTH_MAX - 1)}, MAX_BYTES)
    assert f"at most {DEPTH_MAX} levels" in fault({"a": nested(DEPTH_MAX)}).message
    assert f"at most {DEPTH_MAX} levels" in fault({"a": nested(100_000)}).message


@pytest.mark.parametrize("text", ["x" * 1000, "é" * 500, ["x" * 500, "x" * 500], {"x" * 600: "y" * 400}])
def test_names_and_texts_together_have_a_limit_in_bytes(text: Any) -> None:
    error = fault({"a": text})
    assert isinstance(error, TooLarge)
    assert (error.param, error.message) == ("a", f"a: at most {MAX_BYTES} bytes in a call")


@pytest.mark.parametrize(
    "payload",
    [{}, {"": ""}, {"a": [[], {}, [{}]]}, {"a": [True, None, 0.5, 2**64 - 1]}, {"nul": "\x00", "日本": "🙂"}],
    ids=str,
)
def test_plain_json_passes(payload: dict[str, Any]) -> None:
    check_bounds(payload, MAX_BYTES)


def test_a_path_reads_as_in_javascript() -> None:
    assert (
        field_path(("requests", 3, "params", "messages", 0, "role")) == "requests[3].params.messages[0].role"
    )


def test_a_path_is_short_and_valid_text_whatever_a_field_is_called() -> None:
    path = field_path(("requests", 3, "\ud800" + "x" * 10**6))
    assert path.startswith("requests[3].?xxx")
    assert len(path) == 200
