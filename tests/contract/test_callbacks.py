"""`callback_url` through the operations: who may ask for one, who delivers it, and what a caller sees of it."""

import asyncio
import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest

from shared.adapters.redis_batches import CALLBACK_LEASE_MS, RedisBatches
from shared.core.callbacks import RETRIES_AFTER_S, Attempt, CallbackRules
from shared.errors import Conflict, InvalidRequest
from shared.flow.callbacks import DELIVERIES_AT_ONCE, Callbacks
from shared.flow.operations import HELP_BUDGET_S
from shared.flow.submission import Limits
from tests.conftest import Clock
from tests.contract.service import SIGNING_KEY, Service, build
from tests.contract.state import ENDPOINTS, Store
from tests.contract.test_bad_input import create

URL = "https://hooks.example.com/ended?token=hidden"
NO_ANSWER = Attempt("the receiver answered 500")


async def ended(service: Service, **changes: Any) -> str:
    """A batch that was cancelled before its callback was looked at."""
    batch_id = str((await service.operations.handle(create(callback_url=URL, **changes)))["id"])
    await service.store.batches.stop(batch_id, "canceled")
    return batch_id


async def call(service: Service, operation: str, **fields: Any) -> dict[str, Any]:
    answer = await service.operations.handle({"operation": operation, **fields})
    if service.caretaker.under_way():
        await asyncio.wait(service.caretaker.under_way())
    return answer


async def callback_of(service: Service, batch_id: str) -> Any:
    return (await call(service, "status", id=batch_id))["callback"]


def check_signature(headers: Mapping[str, str], body: str) -> None:
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}"
    digest = hmac.new(SIGNING_KEY, content.encode(), hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{b64encode(digest).decode()}"


@pytest.mark.parametrize("by", ["status", "results", "reconcile", "other status"])
async def test_whoever_comes_by_delivers_it_once_and_signed(service: Service, by: str) -> None:
    other = (await service.operations.handle(create()))["id"]
    batch_id = await ended(service)
    calls = {
        "status": {"operation": "status", "id": batch_id},
        "results": {"operation": "results", "id": batch_id},
        "reconcile": {"operation": "reconcile"},
        "other status": {"operation": "status", "id": other},
    }
    await call(service, **calls[by])
    [(url, headers, body)] = service.receiver.received
    assert url == URL
    assert headers["webhook-id"] == f"evt_{batch_id.removeprefix('batch_')}"
    check_signature(headers, body)
    data = json.loads(body)["data"]
    assert (data["id"], data["processing_status"], data["counts"]["canceled"]) == (batch_id, "ended", 1)
    for _ in range(3):
        await call(service, **calls[by])
    assert len(service.receiver.received) == 1
    assert await callback_of(service, batch_id) == {
        "host": "hooks.example.com",
        "state": "delivered",
        "attempts": 1,
        "error": None,
    }


async def test_a_cancel_that_ends_a_batch_delivers_its_callback(service: Service) -> None:
    batch_id = (await service.operations.handle(create(callback_url=URL)))["id"]
    assert await callback_of(service, batch_id) == {
        "host": "hooks.example.com",
        "state": "pending",
        "attempts": 0,
        "error": None,
    }
    await call(service, "cancel", id=batch_id)
    await call(service, "reconcile")
    assert len(service.receiver.received) == 1


async def test_a_receiver_that_is_down_is_asked_again_by_the_schedule_and_then_no_more(
    store: Store, service: Service, clock: Clock
) -> None:
    service.receiver.answers.extend([NO_ANSWER] * 100)
    batch_id = (await service.operations.handle(create(callback_url=URL, expires_in_s=7 * 86_400)))["id"]
    await store.batches.stop(batch_id, "canceled")
    for number, wait_s in enumerate(RETRIES_AFTER_S, start=1):
        await call(service, "reconcile")
        assert len(service.receiver.received) == number
        seen = await callback_of(service, batch_id)
        assert (seen["state"], seen["attempts"]) == ("pending", number)
        clock.advance_s(wait_s - 1)
        await call(service, "reconcile")
        assert len(service.receiver.received) == number
        clock.advance_s(0.1 * wait_s + 2)
    await call(service, "reconcile")
    assert await callback_of(service, batch_id) == {
        "host": "hooks.example.com",
        "state": "failed",
        "attempts": 8,
        "error": "the receiver answered 500",
    }
    clock.advance_s(86_400)
    await call(service, "reconcile")
    assert len(service.receiver.received) == 8
    assert len({headers["webhook-id"] for _, headers, _ in service.receiver.received}) == 1
    assert len({body for *_, body in service.receiver.received}) == 1


async def test_a_receiver_that_comes_back_is_told(service: Service, clock: Clock) -> None:
    service.receiver.answers.append(NO_ANSWER)
    batch_id = await ended(service)
    await call(service, "reconcile")
    clock.advance_s(6)
    await call(service, "reconcile")
    assert (await callback_of(service, batch_id))["state"] == "delivered"
    assert len(service.receiver.received) == 2


async def test_a_receiver_that_is_slow_holds_no_operation_up(service: Service) -> None:
    service.receiver.held.clear()
    batch_id = await ended(service)
    status = await asyncio.wait_for(
        service.operations.handle({"operation": "status", "id": batch_id}), 10 * HELP_BUDGET_S
    )
    assert status["callback"]["state"] == "pending"
    service.receiver.held.set()
    await asyncio.wait(service.caretaker.under_way())
    assert (await callback_of(service, batch_id))["state"] == "delivered"


async def test_a_process_that_dies_between_sending_and_noting_leaves_it_to_the_next_with_the_same_id(
    service: Service, clock: Clock
) -> None:
    service.receiver.held.clear()
    batch_id = await ended(service)
    await service.caretaker.tick(force=True)
    [dying] = service.caretaker.under_way()
    await asyncio.wait_for(service.receiver.arrived.wait(), 60)
    dying.cancel()
    service.receiver.held.set()
    await call(service, "reconcile")
    assert len(service.receiver.received) == 1
    clock.advance_s(CALLBACK_LEASE_MS / 1000 + 1)
    await call(service, "reconcile")
    first, second = service.receiver.received
    assert first[1]["webhook-id"] == second[1]["webhook-id"]
    assert first[2] == second[2]
    assert (await callback_of(service, batch_id))["state"] == "delivered"


async def test_of_many_drivers_at_once_one_sends(store: Store) -> None:
    services = [build(store, Limits()) for _ in range(6)]
    for _ in range(3):
        await ended(services[0])
    await asyncio.gather(*(call(service, "reconcile") for service in services for _ in range(2)))
    sent = [item for service in services for item in service.receiver.received]
    assert len(sent) == len({headers["webhook-id"] for _, headers, _ in sent}) == 3


async def test_one_reconcile_tells_of_all_ends(store: Store) -> None:
    service = build(store, Limits())
    batch_ids = [await ended(service) for _ in range(20)]
    await call(service, "reconcile")
    told = [json.loads(body)["data"]["id"] for *_, body in service.receiver.received]
    assert sorted(told) == sorted(batch_ids)


async def test_a_process_whose_receivers_hang_leaves_the_rest_to_others(store: Store) -> None:
    stuck, other = build(store, Limits()), build(store, Limits())
    room = stuck.caretaker._callbacks.room
    stuck.caretaker._batches = RedisBatches(store.redis, ENDPOINTS, 1, room)
    stuck.receiver.held.clear()
    for _ in range(DELIVERIES_AT_ONCE + 5):
        await ended(stuck)
    for _ in range(8):
        await stuck.caretaker.tick(force=True)
    assert len(stuck.caretaker.under_way()) == DELIVERIES_AT_ONCE
    await call(other, "reconcile")
    assert len(other.receiver.received) == 5
    stuck.receiver.held.set()
    await asyncio.wait(stuck.caretaker.under_way())


async def test_without_a_key_a_process_has_no_room(service: Service) -> None:
    assert Callbacks(service.store.callbacks, service.receiver, []).room() == 0


async def test_a_batch_that_is_deleted_first_is_not_told_of(service: Service) -> None:
    batch_id = await ended(service)
    await call(service, "delete", id=batch_id)
    await call(service, "reconcile")
    assert service.receiver.received == []


async def test_a_retry_calls_back_where_its_batch_did(service: Service, clock: Clock) -> None:
    batch_id = str((await service.operations.handle(create(callback_url=URL, expires_in_s=10)))["id"])
    clock.advance_s(11)
    await call(service, "reconcile")
    await call(service, "reconcile")
    retry_id = (await call(service, "retry_failed", id=batch_id))["id"]
    await call(service, "cancel", id=retry_id)
    await call(service, "reconcile")
    assert [headers["webhook-id"] for _, headers, _ in service.receiver.received] == [
        f"evt_{id_.removeprefix('batch_')}" for id_ in (batch_id, retry_id)
    ]


async def test_the_url_is_part_of_what_a_key_stands_for(service: Service) -> None:
    first = await service.operations.handle(create(callback_url=URL, idempotency_key="k"))
    assert await service.operations.handle(create(callback_url=URL, idempotency_key="k")) == first
    with pytest.raises(Conflict):
        await service.operations.handle(create(callback_url=f"{URL}2", idempotency_key="k"))


@pytest.mark.parametrize(
    ("rules", "url", "fault"),
    [
        (CallbackRules(), URL, "needs the setting CALLBACK_SECRET, which this deployment lacks"),
        (CallbackRules(enabled=True), "http://hooks.example.com/x", "must be an https URL"),
        (CallbackRules(enabled=True), "https://169.254.169.254/latest", "must be a public address"),
        (CallbackRules(enabled=True), 7, "must be text"),
        (CallbackRules(enabled=True), "", "must have at least 1 character"),
    ],
    ids=["no secret", "http", "metadata", "number", "empty"],
)
async def test_a_url_that_can_not_be_called_is_refused_and_nothing_stored(
    store: Store, rules: CallbackRules, url: Any, fault: str
) -> None:
    service = build(store, Limits(), callbacks=rules)
    with pytest.raises(InvalidRequest) as caught:
        await service.operations.handle(create(callback_url=url))
    assert (caught.value.message, caught.value.param) == (f"callback_url: {fault}", "callback_url")
    assert await store.redis.execute("KEYS", "*") == []


async def test_no_log_holds_the_url(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    service.receiver.answers.append(NO_ANSWER)
    await ended(service)
    await call(service, "reconcile")
    assert "callback pending: attempt 1 the receiver answered 500" in caplog.text
    assert "hidden" not in caplog.text
