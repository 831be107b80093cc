"""What a caller must not send: each a typed error naming the field, and nothing is stored."""

from typing import Any

import pytest

from shared.errors import BatchNotEnded, CallerError, Conflict, InvalidRequest, NotFound, TooLarge
from tests.contract.service import Service

USER = {"role": "user", "content": "hi"}
# Sweeps, which a status makes, note the endpoints and their own throttle.
BOOKKEEPING = {"tick", "endpoints"}


def request(custom_id: Any = "a", metadata: Any = None, **params: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "params": {"messages": [USER], **params}, "metadata": metadata}


def create(*requests: Any, **changes: Any) -> dict[str, Any]:
    return {"operation": "create", "stage": "email", "requests": list(requests) or [request()], **changes}


async def refused(service: Service, payload: Any) -> CallerError:
    """The error of a call, after checking that it stored nothing and asked RunPod for nothing."""
    before = {name: dump for name, dump in (await service.store.dump()).items() if name not in BOOKKEEPING}
    submitted = len(service.jobs.submitted)
    with pytest.raises(CallerError) as caught:
        await service.operations.handle(payload)
    after = {name: dump for name, dump in (await service.store.dump()).items() if name not in BOOKKEEPING}
    assert after == before
    assert len(service.jobs.submitted) == submitted
    return caught.value


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        (None, "input"),
        ([], "input"),
        ("create", "input"),
        ({}, "operation"),
        ({"operation": ""}, "operation"),
        ({"operation": None}, "operation"),
        ({"operation": "creat"}, "operation"),
        ({"operation": ["create"]}, "operation"),
        ({"operation": "create"}, "requests"),
        (create(requests=None), "requests"),
        (create(requests=[]), "requests"),
        (create(requests={"a": 1}), "requests"),
        (create("text"), "requests[0]"),
        (create(stage="polsh"), "stage"),
        (create(stage=None), "stage"),
        (create(request(metadata={"model_hint": "gpt-4"})), "requests[0].metadata.model_hint"),
        (create(request(model="gpt-4"), stage=None), "requests[0].params.model"),
        (create(request("a"), request("b"), request("a")), "requests[2].custom_id"),
        (create(request("")), "requests[0].custom_id"),
        (create(request("x" * 257)), "requests[0].custom_id"),
        (create(request(None)), "requests[0].custom_id"),
        (create(request(messages=[])), "requests[0].params.messages"),
        (create(request(messages=None)), "requests[0].params.messages"),
        (
            create(request(messages=[{"role": "system", "content": "x"}])),
            "requests[0].params.messages[0].role",
        ),
        (create(request(messages=[USER, {"role": "user"}])), "requests[0].params.messages[1].content"),
        (create(request(max_tokens=0)), "requests[0].params.max_tokens"),
        (create(request("a"), request("b", max_tokens=8193)), "requests[1].params.max_tokens"),
        (create(request(temperature=2.5)), "requests[0].params.temperature"),
        (create(request(temperature=-1)), "requests[0].params.temperature"),
        (create(request(stream=True)), "requests[0].params.stream"),
        (create(idempotency_key=""), "idempotency_key"),
        (create(priority="now"), "priority"),
        (create(idempotencyKey="k"), "idempotencyKey"),
        ({"operation": "status"}, "id"),
        ({"operation": "status", "id": 7}, "id"),
        ({"operation": "results", "id": f"batch_{0:024x}", "page": 3}, "page"),
        ({"operation": "list", "limit": 0}, "limit"),
        ({"operation": "list", "limit": 1001}, "limit"),
        ({"operation": "list", "page": "x"}, "page"),
        ({"operation": "webhook"}, "body"),
        ({"operation": "webhook", "body": "x"}, "body"),
        ({"operation": "health", "verbose": True}, "verbose"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_bad_input_names_its_field(service: Service, payload: Any, param: str) -> None:
    error = await refused(service, payload)
    assert isinstance(error, InvalidRequest)
    assert error.param == param
    assert error.message.startswith(param)
    assert len(error.message) < 250


async def test_more_requests_than_a_batch_takes_are_too_many(service: Service) -> None:
    error = await refused(service, create(*(request(str(number)) for number in range(51))))
    assert isinstance(error, TooLarge)
    assert (error.param, error.status_code) == ("requests", 413)


async def test_more_bytes_than_a_batch_takes_are_too_many(service: Service) -> None:
    error = await refused(service, create(*(request(str(n), system="x" * 30_000) for n in range(4))))
    assert isinstance(error, TooLarge)
    assert error.param == "requests"


@pytest.mark.parametrize("operation", ["status", "results", "cancel", "delete"])
@pytest.mark.parametrize("batch_id", [f"batch_{0:024x}", "batch_1", "x", "batch_*", "\ud800"])
async def test_an_unknown_batch_is_not_found(service: Service, operation: str, batch_id: str) -> None:
    error = await refused(service, {"operation": operation, "id": batch_id})
    assert isinstance(error, NotFound | InvalidRequest)
    assert error.param == "id"


async def test_results_before_the_end_are_refused(service: Service) -> None:
    batch = await service.operations.handle(create())
    error = await refused(service, {"operation": "results", "id": batch["id"]})
    assert isinstance(error, BatchNotEnded)
    assert (error.type, error.message, error.status_code) == (
        "batch_not_ended",
        "Batch not yet complete",
        400,
    )


async def test_an_open_batch_is_not_deleted(service: Service) -> None:
    batch = await service.operations.handle(create())
    assert isinstance(await refused(service, {"operation": "delete", **batch}), Conflict)


async def test_an_ended_batch_is_not_canceled(service: Service) -> None:
    batch = await service.operations.handle(create(request("a", metadata={"model_hint": "llama-70b"})))
    await service.operations.handle({"operation": "cancel", **batch})
    assert isinstance(await refused(service, {"operation": "cancel", **batch}), Conflict)


async def test_a_key_that_made_a_batch_of_another_body_is_a_conflict(service: Service) -> None:
    batch = await service.operations.handle(create(idempotency_key="k"))
    error = await refused(service, create(request("other"), idempotency_key="k"))
    assert isinstance(error, Conflict)
    assert (error.param, error.status_code) == ("idempotency_key", 409)
    assert batch["id"] in error.message


async def test_a_second_create_with_the_key_is_the_same_batch_and_stores_nothing(service: Service) -> None:
    batch = await service.operations.handle(create(idempotency_key="k"))
    before = await service.store.dump()
    assert await service.operations.handle(create(idempotency_key="k")) == batch
    assert await service.store.dump() == before


async def test_a_page_that_no_results_call_gave_is_refused(service: Service) -> None:
    batch = await service.operations.handle(create())
    await service.operations.handle({"operation": "cancel", **batch})
    error = await refused(service, {"operation": "results", **batch, "page": "7"})
    assert isinstance(error, InvalidRequest)
    assert error.param == "page"


@pytest.mark.parametrize(
    "body",
    [{}, {"input": None}, {"input": {"batch": "x", "shard": 0, "endpoint": "mistral-ep"}}, {"id": "forged"}],
    ids=str,
)
async def test_a_forged_webhook_changes_nothing(service: Service, body: dict[str, Any]) -> None:
    await service.operations.handle(create())
    before = await service.store.dump()
    assert await service.operations.handle({"operation": "webhook", "body": body}) == {"accepted": True}
    assert await service.store.dump() == before


async def test_a_request_nested_too_deep_is_refused(service: Service) -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    error = await refused(service, create(request(deep=deep)))
    assert isinstance(error, InvalidRequest)
    assert (error.param or "").startswith("requests[0].params.deep[0][0]")
    assert "at most 100 levels" in error.message


async def test_an_operation_that_is_a_hundred_thousand_lists_is_no_internal_error(service: Service) -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert (await refused(service, {"operation": deep})).message == "operation: must be text"


@pytest.mark.parametrize(
    "payload",
    [
        create(stage="x" * 5000),
        create(request(metadata={"model_hint": "x" * 5000})),
        create(**{"x" * 5000: 1}),
        create(request(messages=[{**USER, "x" * 5000: 1}])),
    ],
    ids=["stage", "model_hint", "unknown field", "unknown field of a message"],
)
async def test_a_message_does_not_repeat_a_long_input(service: Service, payload: dict[str, Any]) -> None:
    error = await refused(service, payload)
    assert len(error.message) < 400
    assert len(error.param or "") <= 200
