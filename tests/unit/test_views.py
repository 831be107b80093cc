"""What a caller sees of a batch and of its lines, and records read back tolerantly."""

import json

from shared.core.lifecycle import BatchPhase, ShardState
from shared.core.shards import BatchRecord, ShardRecord
from shared.core.tools import ToolCall
from shared.core.views import absent_line, failed_line, iso, message_view, status_view, succeeded_line


def stored(**changes: str) -> dict[str, str]:
    fields = {
        "status": "processing",
        "stage": "email",
        "total": "10",
        "nonce": "n",
        "created_at": "1767225600000",
        "updated_at": "1767225600500",
        "expires_at": "1767312000000",
        "keep_until": "1767398400000",
        "succeeded": "3",
        "live_succeeded": "2",
        "live_errored": "1",
        "requests:mistral": "6",
        "requests:llama-70b": "4",
    }
    return {**fields, **changes}


def record(**changes: str) -> BatchRecord:
    return BatchRecord.parse("batch_1", stored(**changes))


def test_counts_are_live_and_add_up_and_settled_stand_beside() -> None:
    view = status_view(record())
    assert view["counts"] == {"total": 10, "succeeded": 5, "errored": 1, "pending": 4}
    assert view["settled"] == {"succeeded": 3, "errored": 0, "canceled": 0, "expired": 0}


def test_attempts_deaths_and_splits_are_told() -> None:
    view = status_view(record(attempts="7", deaths="3", splits="1"))
    assert (view["attempts"], view["lost_attempts"], view["splits"]) == (7, 3, 1)
    fresh = status_view(record())
    assert (fresh["attempts"], fresh["lost_attempts"], fresh["splits"]) == (0, 0, 0)


def test_canceled_and_expired_are_counted_where_they_are_not_zero() -> None:
    view = status_view(record(canceled="2", expired="1"))
    assert view["counts"] == {
        "total": 10,
        "succeeded": 5,
        "errored": 1,
        "pending": 1,
        "canceled": 2,
        "expired": 1,
    }


def test_times_are_iso_in_utc_and_null_until_they_are() -> None:
    view = status_view(record())
    assert view["created_at"] == "2026-01-01T00:00:00.000Z"
    assert view["updated_at"] == "2026-01-01T00:00:00.500Z"
    assert (view["ended_at"], view["cancel_requested_at"], view["retry_of"]) == (None, None, None)
    assert iso(None) is None


def test_a_cancel_is_told_and_an_expiry_is_not_taken_for_one() -> None:
    at = "1767225601000"
    canceled, expired = record(stop="canceled", stop_at=at), record(stop="expired", stop_at=at)
    assert status_view(canceled)["cancel_requested_at"] == "2026-01-01T00:00:01.000Z"
    assert status_view(expired)["cancel_requested_at"] is None


def test_a_stored_batch_is_read_with_its_requests_by_model() -> None:
    batch = record()
    assert (batch.phase, batch.priority) == (BatchPhase.PROCESSING, "normal")
    assert batch.models == status_view(batch)["models"] == {"mistral": 6, "llama-70b": 4}


def test_a_stored_shard_is_read_though_fields_are_missing_or_new() -> None:
    text = '{"model":"m","state":"running","attempt":2,"epoch":3.0,"requests":4,"news":1}'
    shard = ShardRecord.parse(7, text)
    assert shard == ShardRecord(7, "m", ShardState.RUNNING, 2, 3, 4)


def test_a_stored_part_knows_where_its_input_is_and_a_whole_shard_has_its_own() -> None:
    shard = {"model": "m", "state": "split", "attempt": 2, "epoch": 3, "requests": 4}
    whole = ShardRecord.parse(7, json.dumps({**shard, "suspicions": 2, "alone": True, "halves": [8, 9]}))
    assert (whole.suspicions, whole.alone, whole.halves, whole.input_shard) == (2, True, (8, 9), 7)
    part = ShardRecord.parse(9, json.dumps({**shard, "root": 0, "offset": 4}))
    assert (part.input_shard, part.offset, part.halves, part.alone) == (0, 4, (), False)


def test_a_line_that_did_not_succeed_has_an_error_and_no_message() -> None:
    lines = [
        failed_line("a", "m", "errored", "invalid_request_error", "no"),
        absent_line("a", "m", "canceled", ""),
        absent_line("a", "m", "expired", ""),
        absent_line("a", "m", "errored", "Lost 4 times"),
        absent_line("a", "m", "errored", ""),
    ]
    assert [line["error"]["type"] for line in lines] == [
        "invalid_request_error",
        "canceled",
        "expired",
        "worker_error",
        "worker_error",
    ]
    assert all(line["error"]["message"] and line["message"] is None for line in lines)
    assert [line["status"] for line in lines] == ["errored", "canceled", "expired", "errored", "errored"]


def test_a_line_that_succeeded_has_its_text_and_usage() -> None:
    assert succeeded_line("a", "m", "text", 3, 4) == {
        "custom_id": "a",
        "status": "succeeded",
        "message": {
            "content": [{"type": "text", "text": "text"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
        },
        "usage": {"input_tokens": 3, "output_tokens": 4},
        "error": None,
        "model": "m",
    }


CALL = ToolCall("toolu_1", "rate", {"score": 3})
CALL_BLOCK = {"type": "tool_use", "id": "toolu_1", "name": "rate", "input": {"score": 3}}


def test_a_message_without_a_call_is_one_text_which_may_be_empty() -> None:
    assert message_view("", stop_reason="stop_sequence", stop_sequence="END") == {
        "content": [{"type": "text", "text": ""}],
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
    }


def test_a_message_with_calls_has_a_text_only_where_there_is_one() -> None:
    assert message_view("", [CALL], "tool_use")["content"] == [CALL_BLOCK]
    assert message_view("Well.", [CALL, CALL], "tool_use")["content"] == [
        {"type": "text", "text": "Well."},
        CALL_BLOCK,
        CALL_BLOCK,
    ]
