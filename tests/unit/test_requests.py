"""What a caller may send: every bad field is named with its limit, and unknown fields of params are kept."""

from typing import Any

import pytest

from shared.core.requests import (
    CreateInput,
    ListInput,
    ResultsInput,
    check_id,
    check_unique,
    parse,
)
from shared.errors import InvalidRequest, NotFound

GOOD_ID = "batch_" + "a" * 24
MISSING = object()


def request(**changes: Any) -> dict[str, Any]:
    fields = {"custom_id": "lead_1", "params": {"messages": [{"role": "user", "content": "hi"}]}, **changes}
    return {name: value for name, value in fields.items() if value is not MISSING}


def params(**changes: Any) -> dict[str, Any]:
    fields = {"messages": [{"role": "user", "content": "hi"}], **changes}
    return request(params={name: value for name, value in fields.items() if value is not MISSING})


def asking(json_schema: Any, kind: str = "json_schema") -> dict[str, Any]:
    return params(response_format={"type": kind, "json_schema": json_schema})


def create(*requests: Any, **changes: Any) -> dict[str, Any]:
    return {"operation": "create", "stage": "email", "requests": list(requests), **changes}


def fault(payload: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(CreateInput, payload)
    return caught.value


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        (request(custom_id=MISSING), "custom_id"),
        (request(custom_id=""), "custom_id"),
        (request(custom_id="x" * 257), "custom_id"),
        (request(custom_id=7), "custom_id"),
        (request(custom_id="\ud800"), "custom_id"),
        (request(params=MISSING), "params"),
        (request(params=[]), "params"),
        (request(metadata="x"), "metadata"),
        (request(metadata={"model_hint": ""}), "metadata.model_hint"),
        (request(metadata={"model_hint": 3}), "metadata.model_hint"),
        (params(messages=MISSING), "params.messages"),
        (params(messages=[]), "params.messages"),
        (params(messages="hi"), "params.messages"),
        (params(messages=[{"role": "system", "content": "x"}]), "params.messages[0].role"),
        (params(messages=[{"role": "user"}]), "params.messages[0].content"),
        (params(messages=[{"role": "user", "content": ""}]), "params.messages[0].content"),
        (params(messages=[{"role": "user", "content": None}]), "params.messages[0].content"),
        (params(system=3), "params.system"),
        (params(max_tokens=0), "params.max_tokens"),
        (params(max_tokens=-1), "params.max_tokens"),
        (params(max_tokens="10"), "params.max_tokens"),
        (params(max_tokens=1.5), "params.max_tokens"),
        (params(max_tokens=True), "params.max_tokens"),
        (params(max_tokens=None), "params.max_tokens"),
        (params(temperature=-0.1), "params.temperature"),
        (params(temperature=2.1), "params.temperature"),
        (params(temperature="hot"), "params.temperature"),
        (params(temperature=float("nan")), "params.temperature"),
        (params(model=""), "params.model"),
        (params(stream=True), "params.stream"),
        (params(response_format="json"), "params.response_format"),
        (params(response_format={}), "params.response_format.type"),
        (params(response_format={"type": "xml"}), "params.response_format.type"),
        (params(response_format={"type": "json_schema"}), "params.response_format.json_schema"),
        (asking({}), "params.response_format.json_schema.schema"),
        (asking({"schema": [1]}), "params.response_format.json_schema.schema"),
        (asking({"schema": {}, "schma": {}}), "params.response_format.json_schema.schma"),
        (asking({"schema": {}}, "json_object"), "params.response_format.json_schema"),
        (params(on_invalid="ignore"), "params.on_invalid"),
        (params(on_invalid=2), "params.on_invalid"),
    ],
    ids=str,
)
def test_a_bad_field_of_a_request_is_named(bad: dict[str, Any], param: str) -> None:
    error = fault(create(request(), bad))
    assert error.param == f"requests[1].{param}"
    assert error.message.startswith(f"requests[1].{param}: ")
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"requests": []}, "requests"),
        ({"requests": "x"}, "requests"),
        ({"requests": {"a": 1}}, "requests"),
        ({"requests": [3]}, "requests[0]"),
        ({"stage": ""}, "stage"),
        ({"stage": 3}, "stage"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "x" * 257}, "idempotency_key"),
        ({"priority": "urgent"}, "priority"),
        ({"expires_in_s": 9}, "expires_in_s"),
        ({"expires_in_s": 7 * 24 * 3600 + 1}, "expires_in_s"),
        ({"expires_in_s": 10**30}, "expires_in_s"),
        ({"expires_in_s": 60.5}, "expires_in_s"),
        ({"expires_in_s": "60"}, "expires_in_s"),
        ({"expires_in_s": True}, "expires_in_s"),
        ({"callbck_url": "x"}, "callbck_url"),
    ],
    ids=str,
)
def test_a_bad_field_of_a_create_is_named(changes: dict[str, Any], param: str) -> None:
    assert fault(create(request(), **changes)).param == param


def test_missing_requests_are_named() -> None:
    assert fault({"operation": "create"}).message == "requests: required field is missing"


def test_the_first_of_many_faults_is_told_with_their_number() -> None:
    error = fault(create(params(max_tokens=0, temperature=3), request(custom_id=""), priority="urgent"))
    assert error.param == "requests[0].params.max_tokens"
    # Beside it in its own request and in the call: the requests behind it are not looked at.
    assert error.message.endswith("(2 more faults beside it)")


def test_what_is_not_given_has_its_default_and_unknown_params_are_kept() -> None:
    wanted = parse(CreateInput, create(params(logit_bias={}, system="be brief", temperature=1)))
    [given] = wanted.requests
    assert (given.params.max_tokens, given.params.temperature, given.params.system) == (2048, 1.0, "be brief")
    assert given.params.model_extra == {"logit_bias": {}}
    assert (wanted.priority, wanted.idempotency_key) == ("normal", None)


@pytest.mark.parametrize(
    "response_format",
    [
        None,
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"schema": {}}},
        {
            "type": "json_schema",
            "json_schema": {"name": "lead", "strict": True, "schema": {"type": "nonsense"}},
        },
    ],
    ids=str,
)
def test_openais_response_formats_are_taken_and_their_schemas_left_to_the_worker(
    response_format: Any,
) -> None:
    wanted = parse(CreateInput, create(params(response_format=response_format, on_invalid="retry")))
    assert wanted.requests[0].params.on_invalid == "retry"


def test_a_schema_that_is_not_given_is_told_like_any_field() -> None:
    error = fault(create(params(response_format={"type": "json_schema"})))
    assert error.message.endswith("response_format.json_schema: required field is missing")


@pytest.mark.parametrize("custom_id", ["x" * 256, " ", "é日本🙂", 'a"\\\n\x00b', "lead_1_email"])
def test_any_text_is_a_custom_id(custom_id: str) -> None:
    assert parse(CreateInput, create(request(custom_id=custom_id))).requests[0].custom_id == custom_id


@pytest.mark.parametrize("batch_id", ["", "x" * 257, 7, None])
def test_what_is_no_text_for_an_id_is_named(batch_id: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ResultsInput, {"operation": "results", "id": batch_id})
    assert caught.value.param == "id"


@pytest.mark.parametrize(
    "batch_id", ["batch_1", "batch_" + "g" * 24, "batch_" + "a" * 25, "Batch_" + "a" * 24, f"{GOOD_ID}\n"]
)
def test_an_id_that_no_batch_can_have_is_not_found(batch_id: str) -> None:
    with pytest.raises(NotFound) as caught:
        check_id(batch_id)
    assert caught.value.param == "id"
    assert check_id(GOOD_ID) == GOOD_ID


@pytest.mark.parametrize("limit", [0, 1001, "20", 1.5])
def test_a_bad_limit_is_named(limit: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ListInput, {"operation": "list", "limit": limit})
    assert caught.value.param == "limit"


def test_the_second_of_two_equal_custom_ids_is_named() -> None:
    wanted = parse(CreateInput, create(*(request(custom_id=name) for name in ("a", "b", "a"))))
    with pytest.raises(InvalidRequest, match=r"requests\[0\]") as caught:
        check_unique(wanted.requests)
    assert caught.value.param == "requests[2].custom_id"
    check_unique(wanted.requests[:2])


def test_a_million_wrong_messages_are_refused_at_the_first_of_them() -> None:
    """They held the interpreter for 14 s and took 1.5 GB, because every fault was collected."""
    error = fault(create(params(messages=[1] * 1_000_000)))
    assert error.message == "requests[0].params.messages[0]: must be an object"


def test_a_hundred_thousand_wrong_requests_are_refused_at_the_first_of_them() -> None:
    assert fault(create(*[3] * 100_000)).message == "requests[0]: must be an object"


@pytest.mark.parametrize("top_k", [2**31, 2**63])
def test_a_top_k_that_no_engine_can_hold_is_named(top_k: int) -> None:
    assert fault(create(params(top_k=top_k))).param == "requests[0].params.top_k"
