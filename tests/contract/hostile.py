"""Input as an attacker or a broken client makes it: valid calls changed at random places, for hypothesis.

What is very deep or very long stands as a `Deep` or a `Long` until `built`, so that a failing example can be shown.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Derandomized: the same examples in every run, so that a failure is there again when the test is run again.
FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=120,
    suppress_health_check=list(HealthCheck),
)
# No call may take longer, on the slowest machine that runs the tests.
CALL_LIMIT_S = 20.0
MESSAGE_MAX_CHARS = 500
ERROR_TYPES = {
    "invalid_request_error": 400,
    "batch_not_ended": 400,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
}


@dataclass(frozen=True)
class Deep:
    """So many lists, or objects, in each other."""

    levels: int
    objects: bool = False


@dataclass(frozen=True)
class Long:
    """A text of so many characters."""

    chars: int
    of: str = "x"


def built(value: Any) -> Any:
    """The input that stands for itself: each `Deep` and `Long` made."""
    if isinstance(value, Deep | Long):
        return _made(value)
    if isinstance(value, dict):
        return {name: built(item) for name, item in value.items()}
    return [built(item) for item in value] if isinstance(value, list) else value


@cache
def _made(value: Deep | Long) -> Any:
    if isinstance(value, Long):
        return value.of * value.chars
    made: Any = "x"
    for _ in range(value.levels):
        made = {"a": made} if value.objects else [made]
    return made


NUMBERS: list[Any] = [
    *(0, -1, 1, 0.5, -0.0, 1e308, 5e-324, True, False, float("nan"), float("inf"), float("-inf")),
    *(2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**400, -(10**400), 10**5000),
]
TEXTS: list[Any] = [
    *(
        "",
        " ",
        "\x00",
        "a\x00b",
        "\ud800",
        "\udfff\ud800",
        "\ufeff",
        "\u202e",
        "\r\n",
        "x\nX-Header: 1",
        "\x1b[31m",
    ),
    *("\u0661", "\u0967\u0968", "\uff11", "NaN", "1e400", "-1", "0x1", "9" * 400, "null", "[]", "{}"),
    *(
        "*",
        "batch:*",
        "batch_*",
        "idem:k",
        "queue:mistral",
        "a:b",
        "inbox:0",
        f"batch_{0:024x}",
        f"batch_{0:024x}\n",
    ),
    *("1:batch_1", "9" * 300 + ":x", "-1:x", "\u0661:x", "1:", ":", "1e3:x", "inf:x", "nan:x"),
    *(
        "__proto__",
        "constructor",
        "${jndi:ldap://x}",
        "{0.__class__}",
        "%s%n",
        "' OR 1=1 --",
        "return 1",
        "]]--",
    ),
    *("http://169.254.169.254/", "file:///etc/passwd", "../../etc/passwd", Long(257), Long(5000, "\u00e9")),
]
SHAPES: list[Any] = [None, [], {}, [[]], [{}], [None], {"": None}, {"a": {}}, {"\ud800": 1}, {"\x00": "\x00"}]
DEEPS = [Deep(101), Deep(900), Deep(100_000), Deep(100_000, objects=True)]

anything = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(SHAPES),
    st.sampled_from(DEEPS),
    st.text(max_size=20),
    st.integers(),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
names = st.one_of(
    st.sampled_from([text for text in TEXTS if isinstance(text, str)]),
    st.sampled_from(["id", "callback_url", "webhook", "url", "force", "operation", "stop", "n", "prompt"]),
    st.text(max_size=10),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a value, as the container and the name or index in it."""
    if isinstance(value, dict | list):
        for name, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, name
            yield from places(item)


@st.composite
def mutated(draw: st.DrawFn, valid: Mapping[str, Any]) -> dict[str, Any]:
    """A valid input changed at up to three places: replaced, removed, doubled or with one field more."""
    payload = copy.deepcopy(dict(valid))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(payload))
        if not found:
            break
        container, name = found[draw(st.integers(0, len(found) - 1))]
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "more"]))
        if how == "replace":
            container[name] = copy.deepcopy(draw(anything))
        elif how == "remove":
            del container[name]
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[name]))
        else:
            container[draw(names)] = copy.deepcopy(draw(anything))
    return payload


def read_again(value: Any) -> Any:
    """The value as it comes out of the JSON text that it makes, as a worker gets it; as it is where it makes none."""
    try:
        return json.loads(json.dumps(value))
    except (RecursionError, ValueError):
        return value


def check_error(text: str) -> int:
    """The status code of one of our errors, after checking that it is typed, short and can be sent anywhere."""
    text.encode("ascii")
    assert "Traceback" not in text
    body = json.loads(text)
    assert body.keys() == {"type", "status_code", "error", "request_id"}, text
    error = body["error"]
    error["message"].encode()
    assert ERROR_TYPES.get(error["type"]) == body["status_code"], text
    assert len(error["message"]) <= MESSAGE_MAX_CHARS, text
    if error["type"] in ("invalid_request_error", "request_too_large"):
        assert error["message"].startswith(f"{error['param']}: "), text
    return int(body["status_code"])
