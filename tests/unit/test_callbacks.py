"""The event at a batch's end: its form, its signature, and when it is sent again."""

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.callbacks import (
    RETRIES_AFTER_S,
    Attempt,
    CallbackRules,
    Noted,
    after_attempt,
    event_body,
    event_id,
    judge,
    read_secrets,
    signed_headers,
)
from shared.core.shards import CallbackRecord
from shared.core.views import status_view
from shared.errors import InvalidRequest
from tests.unit.test_views import record

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://hooks.example.com/ended?token=hidden"


def test_a_signature_is_the_one_of_the_conventions_own_example() -> None:
    headers = signed_headers(
        read_secrets(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}'
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_of_several_secrets_signs() -> None:
    other = "whsec_" + base64.b64encode(bytes(32)).decode()
    both = signed_headers(read_secrets(f"{other} {SECRET}"), "id", 1, "body")["webhook-signature"]
    alone = [
        signed_headers(read_secrets(text), "id", 1, "body")["webhook-signature"] for text in (other, SECRET)
    ]
    assert both.split(" ") == alone


BAD_SECRETS = {
    "no prefix": (SECRET.removeprefix("whsec_"), "not a whsec_"),
    "no base64": ("whsec_" + "!" * 32, "base64"),
    "no ASCII": ("whsec_" + "ж" * 32, "ASCII"),
    "short": ("whsec_" + base64.b64encode(bytes(23)).decode(), "too short"),
    "long": ("whsec_" + base64.b64encode(bytes(65)).decode(), "too long"),
    "one of two": (f"{SECRET} x", "not a whsec_"),
}


@pytest.mark.parametrize(("text", "fault"), BAD_SECRETS.values(), ids=BAD_SECRETS.keys())
def test_a_bad_secret_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_secrets(text)


def test_the_event_says_how_the_batch_ended_and_nothing_of_its_results() -> None:
    batch = record(status="ended", ended_at="1700000000000", callback_url=URL)
    event = json.loads(event_body(batch))
    status = status_view(batch)
    assert event == {
        "type": "batch.ended",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "data": {
            "id": batch.id,
            "processing_status": "ended",
            "counts": status["counts"],
            "created_at": status["created_at"],
            "ended_at": status["ended_at"],
        },
    }


def test_every_attempt_has_the_same_id_and_body() -> None:
    batch = record(status="ended", ended_at="1", callback_url=URL)
    later = replace(batch, callback=CallbackRecord(URL, "pending", 3, "no answer"))
    assert event_body(later) == event_body(batch)
    assert event_id("batch_0123456789abcdef01234567") == "evt_0123456789abcdef01234567"


def test_a_status_shows_the_host_alone() -> None:
    told = {
        "callback_state": "failed",
        "callback_attempts": "8",
        "callback_fault": "the receiver answered 500",
    }
    view = status_view(record(callback_url=URL, **told))
    assert view["callback"] == {
        "host": "hooks.example.com",
        "state": "failed",
        "attempts": 8,
        "error": "the receiver answered 500",
    }
    assert "hidden" not in json.dumps(view)
    assert status_view(record())["callback"] is None


def test_a_record_does_not_repeat_its_url() -> None:
    assert "hidden" not in repr(record(callback_url=URL))


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_success_is_a_delivery(status: int) -> None:
    assert after_attempt(1, judge(status), lambda: 0.5) == Noted("delivered")


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 429, 500, 503])
def test_any_other_answer_is_tried_again(status: int) -> None:
    assert after_attempt(1, judge(status), lambda: 0) == Noted(
        "pending", f"the receiver answered {status}", 5000
    )


def test_a_receiver_that_is_gone_is_not_asked_again() -> None:
    assert after_attempt(1, judge(410), lambda: 0) == Noted("failed", "the receiver answered 410")


@given(number=st.integers(1, 20), chance=st.floats(0, 1, exclude_max=True))
def test_attempts_follow_the_schedule_and_end(number: int, chance: float) -> None:
    noted = after_attempt(number, Attempt("no answer"), lambda: chance)
    if number > len(RETRIES_AFTER_S):
        assert noted == Noted("failed", "no answer")
    else:
        wait_ms = 1000 * RETRIES_AFTER_S[number - 1]
        assert (noted.state, noted.fault) == ("pending", "no answer")
        assert wait_ms <= noted.after_ms <= 1.1 * wait_ms + 1


def test_without_a_secret_a_callback_is_refused_by_name_of_the_setting() -> None:
    with pytest.raises(InvalidRequest, match="CALLBACK_SECRET") as caught:
        CallbackRules().check(URL)
    assert caught.value.param == "callback_url"
    assert "hidden" not in str(caught.value)
    CallbackRules().check(None)


def test_a_bad_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(InvalidRequest, match="callback_url: must be an https URL") as caught:
        CallbackRules(enabled=True).check("http://hooks.example.com/?token=hidden")
    assert "hidden" not in str(caught.value)
    CallbackRules(enabled=True).check(URL)
    CallbackRules(enabled=True, allow_private=True).check("http://127.0.0.1/")
