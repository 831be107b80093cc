"""`retry_failed` over the real Redis: what the new batch is made of, and that many calls make one."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from shared.adapters import keys
from shared.core import codec
from shared.core.routing import Router
from shared.core.shards import BatchRecord
from shared.core.views import failed_line, succeeded_line
from shared.errors import BatchNotEnded, Conflict, InvalidRequest, NotFound, StorageUnavailable
from shared.flow.outputs import ShardOutput
from shared.flow.results import SHARDS_PER_READ_MAX
from shared.flow.submission import Limits, Submitter
from shared.ports.payloads import input_key, order_key, output_key
from shared.ports.state import ShardRef
from tests.conftest import Clock
from tests.contract.service import SIGNED, Service, build
from tests.contract.state import HOUR_MS, Store
from tests.contract.test_service import iter_submitted, pages

# By the number of a request: errored, expired or canceled; the rest succeeds.
FAULTS = {3: "errored", 4: "errored", 7: "expired", 11: "errored", 13: "canceled"}
RETRIED = [number for number, status in FAULTS.items() if status != "canceled"]


def request_of(number: int) -> dict[str, Any]:
    """Every third goes to the large model; each has fields of its own."""
    params: dict[str, Any] = {
        "messages": [{"role": "user", "content": f"Lead {number} é"}],
        "logit_bias": {"1": 2},
    }
    if number % 2:
        params["max_tokens"] = 10 + number
    hint = "llama-70b" if number % 3 == 0 else "mistral"
    return {
        "custom_id": f"id-{number}",
        "params": params,
        "metadata": {"model_hint": hint, "lead": number},
        "note": number,
    }


REQUESTS = [request_of(number) for number in range(20)]
# More than any batch here has.
PARTS = 4


async def create(service: Service, **changes: Any) -> str:
    call = {"operation": "create", "stage": "email", "requests": REQUESTS, "priority": "high", **changes}
    return str((await service.operations.handle(call))["id"])


async def run_all(service: Service, batch_id: str) -> None:
    """What is submitted of the batch ends as FAULTS says."""
    for job in iter_submitted(service):
        ref = ShardRef(job.job_input["batch"], job.job_input["shard"])
        shard = await service.store.shard(ref)
        if ref.batch != batch_id or shard is None:
            continue
        started = await service.store.runs.start(ref, shard.attempt, shard.job, "w1", job.endpoint)
        requests = await stored(service, started.nonce, ref.shard)
        lines = [line_of(request["custom_id"], job.endpoint.model) for request in requests]
        output = ShardOutput(lines, 5)
        key = output_key(started.nonce, ref.shard, started.epoch)
        inline = service.payloads.inline(output.encode()) or ""
        assert await service.store.runs.settle(
            ref, started.epoch, job.endpoint, key, output.outcome(), inline
        )
        await service.feeder.kick(job.endpoint.model)


def line_of(custom_id: str, model: str) -> dict[str, Any]:
    status = FAULTS.get(int(custom_id.partition("-")[2]))
    if status is None:
        return succeeded_line(custom_id, model, "text", 1, 2)
    return failed_line(custom_id, model, status, "api_error", "failed")


async def stored(service: Service, nonce: str, shard: int) -> list[dict[str, Any]]:
    [data] = await service.payloads.get([input_key(nonce, shard)])
    assert data is not None
    requests: list[dict[str, Any]] = codec.decode(data)
    return requests


async def stored_by_id(service: Service, batch: BatchRecord) -> dict[str, tuple[str, dict[str, Any]]]:
    """custom_id -> the model and the stored request."""
    return {
        request["custom_id"]: (plan.model, request)
        for part in [await service.store.batches.part(batch.id, number) for number in range(PARTS)]
        if part is not None
        for plan in part.models
        for shard in plan.numbers
        for request in await stored(service, batch.nonce, shard)
    }


async def ended(service: Service, **changes: Any) -> str:
    batch_id = await create(service, **changes)
    await run_all(service, batch_id)
    return batch_id


async def retry(service: Service, batch_id: str, **changes: Any) -> str:
    call = {"operation": "retry_failed", "id": batch_id, **changes}
    return str((await service.operations.handle(call))["id"])


async def records(service: Service) -> set[str]:
    """The keys of batches and of what belongs to them."""
    kinds = ("batch", "payload", "idem", "retry")
    return {name for name in await service.store.ttls_ms() if name.partition(":")[0] in kinds}


async def test_a_retry_is_a_batch_of_the_failed_requests_as_they_were_stored(service: Service) -> None:
    first_id = await ended(service, expires_in_s=1800)
    first = await service.store.batch(first_id)
    retry_id = await retry(service, first_id)
    again = await service.store.batch(retry_id)
    assert (again.total, again.stage, again.priority) == (len(RETRIED), "email", "high")
    assert (again.retry_of, first.retry_of) == (first_id, "")
    assert again.expires_ms - again.created_ms == first.expires_ms - first.created_ms == 1_800_000
    before = await stored_by_id(service, first)
    assert await stored_by_id(service, again) == {f"id-{n}": before[f"id-{n}"] for n in RETRIED}
    await run_all(service, retry_id)
    lines = [line for page in await pages(service, retry_id) for line in page]
    assert [line["custom_id"] for line in lines] == [f"id-{number}" for number in RETRIED], "the first order"


async def test_a_retry_keeps_models_and_schemas_though_the_settings_changed(service: Service) -> None:
    batch_id = await create(service, requests=[{**request, "metadata": {}} for request in REQUESTS])
    await run_all(service, batch_id)
    first = await service.store.batch(batch_id)
    router = Router(
        [replace_context(card) for card in service.operations._submitter._router._cards.values()], {}
    )
    changed = Submitter(
        service.store.batches, service.payloads, router, Limits(), {"email": {"type": "object"}}, SIGNED
    )
    service.operations._submitter = changed
    again = await service.store.batch(await retry(service, batch_id))
    before = await stored_by_id(service, first)
    assert await stored_by_id(service, again) == {f"id-{n}": before[f"id-{n}"] for n in RETRIED}
    assert list(again.models) == ["mistral"]


def replace_context(card: Any) -> Any:
    """A card that would refuse every request of a create."""
    return replace(card, context_tokens=1)


async def test_a_retry_for_a_model_that_is_served_no_more_says_so_and_stores_nothing(
    service: Service,
) -> None:
    batch_id = await ended(service)
    submitter = service.operations._submitter
    submitter._router = Router(
        [card for card in submitter._router._cards.values() if card.name != "mistral"], {}
    )
    before = await records(service)
    with pytest.raises(InvalidRequest, match="mistral, which is not served now"):
        await retry(service, batch_id)
    assert await records(service) == before


async def test_what_was_never_handed_out_of_an_expired_batch_is_retried_too(
    service: Service, clock: Clock
) -> None:
    batch_id = await create(service, expires_in_s=60)
    clock.advance_s(61)
    await service.operations.handle({"operation": "reconcile"})
    status = await service.operations.handle({"operation": "status", "id": batch_id})
    assert status["counts"]["expired"] == len(REQUESTS)
    again = await service.store.batch(await retry(service, batch_id))
    assert (again.total, again.settled["expired"]) == (len(REQUESTS), 0)
    assert sorted(again.models.values()) == [7, 13]


async def test_what_a_cancel_stopped_is_not_retried(service: Service) -> None:
    batch_id = await create(service)
    await service.operations.handle({"operation": "cancel", "id": batch_id})
    with pytest.raises(InvalidRequest, match=r"^id: no request of batch_\w+ errored or expired$"):
        await retry(service, batch_id)


@pytest.mark.parametrize("key", [None, "mine"])
async def test_many_retries_at_once_by_many_processes_make_one_batch_and_leave_no_payload_of_another(
    service: Service, key: str | None
) -> None:
    batch_id = await ended(service)
    before = await records(service)
    # Each service stands for a process: they share the state alone.
    services = [build(service.store, Limits()) for _ in range(5)] * 2
    ids = await asyncio.gather(*(retry(each, batch_id, idempotency_key=key) for each in services))
    assert len(set(ids)) == 1
    again = await service.store.batch(ids[0])
    made = await records(service) - before
    part = await service.store.batches.part(again.id, 0)
    assert part is not None
    shards = sum(plan.shards for plan in part.models)
    assert {name for name in made if name.startswith("payload:")} == {
        order_key(again.nonce, 0),
        *(input_key(again.nonce, shard) for shard in range(shards)),
    }
    assert {
        name for name in made if name.startswith("batch:") and not name.endswith((":shards", ":plan"))
    } == {keys.batch(ids[0])}
    assert await retry(service, batch_id, idempotency_key=key) == ids[0]


async def test_a_retry_under_a_key_of_its_own_is_another_batch(service: Service) -> None:
    batch_id = await ended(service)
    plain, keyed = await retry(service, batch_id), await retry(service, batch_id, idempotency_key="mine")
    assert plain != keyed
    assert await retry(service, batch_id) == plain
    assert await retry(service, batch_id, idempotency_key="mine") == keyed


async def test_no_key_of_a_create_stands_for_a_retry(service: Service) -> None:
    batch_id = await ended(service)
    for key in (batch_id, keys.retry(batch_id), f"retry_of:{batch_id}"):
        await create(service, idempotency_key=key)
    retry_id = await retry(service, batch_id)
    assert (await service.store.batch(retry_id)).retry_of == batch_id


async def test_a_key_that_made_something_else_is_a_conflict(service: Service) -> None:
    batch_id, other_id = await ended(service), await ended(service, idempotency_key="taken")
    await retry(service, other_id, idempotency_key="taken by a retry")
    for key in ("taken", "taken by a retry"):
        with pytest.raises(Conflict, match="idempotency_key: used before for batch_"):
            await retry(service, batch_id, idempotency_key=key)
    with pytest.raises(Conflict):
        await create(service, idempotency_key="taken by a retry")


async def test_a_retry_that_can_not_be_leaves_nothing(service: Service) -> None:
    fine, gone = await ended(service, requests=REQUESTS[:3]), await ended(service)
    await service.operations.handle({"operation": "delete", "id": gone})
    running = await create(service)
    before = await records(service)
    refusals: list[tuple[str, type[Exception]]] = [
        (fine, InvalidRequest),
        (running, BatchNotEnded),
        (gone, NotFound),
        (f"batch_{0:024x}", NotFound),
        ("batch_1", NotFound),
    ]
    for batch_id, error in refusals:
        with pytest.raises(error):
            await retry(service, batch_id)
        with pytest.raises(error):
            await retry(service, batch_id, idempotency_key="k")
    assert await records(service) == before


async def test_a_retry_of_a_retry_holds_what_failed_again(service: Service) -> None:
    second = await retry(service, await ended(service))
    await run_all(service, second)
    third = await service.store.batch(await retry(service, second))
    assert (third.total, third.retry_of) == (len(RETRIED), second)


async def test_a_batch_and_its_retry_are_deleted_each_by_itself(service: Service) -> None:
    first = await ended(service)
    second = await retry(service, first)
    await run_all(service, second)
    await service.operations.handle({"operation": "delete", "id": first})
    lines = [line for page in await pages(service, second) for line in page]
    assert len(lines) == len(RETRIED)
    await service.operations.handle({"operation": "delete", "id": second})
    assert await records(service) == {keys.retry(first)}


async def test_a_large_batchs_retry_holds_no_more_than_a_few_shards_beside_what_failed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = build(service.store, Limits(), service.jobs)
    requests = [{**request_of(1), "custom_id": f"id-{number}"} for number in range(3000)]
    batch_id = await ended(large, requests=requests)
    get, reads = large.payloads.get, []

    async def counted(wanted: Sequence[str]) -> list[bytes | None]:
        reads.append(len(wanted))
        return await get(wanted)

    monkeypatch.setattr(large.payloads, "get", counted)
    assert (await large.store.batch(await retry(large, batch_id))).total == len(RETRIED)
    outputs = 3000 // 32 + 1
    assert max(reads) <= SHARDS_PER_READ_MAX
    assert sum(reads) <= outputs + 2, "inputs are read where something failed"


async def test_a_batch_whose_payload_is_missing_is_not_retried_in_part(service: Service) -> None:
    batch_id = await ended(service)
    nonce = (await service.store.batch(batch_id)).nonce
    await service.payloads.delete([input_key(nonce, 0), input_key(nonce, 1)])
    before = await records(service)
    with pytest.raises(StorageUnavailable):
        await retry(service, batch_id)
    assert await records(service) == before


async def test_the_status_and_the_list_name_the_batch_that_is_retried(service: Service) -> None:
    first = await ended(service)
    second = await retry(service, first)
    status = await service.operations.handle({"operation": "status", "id": second})
    assert status["retry_of"] == first
    listed = (await service.operations.handle({"operation": "list"}))["batches"]
    assert {batch["id"]: batch["retry_of"] for batch in listed} == {first: None, second: first}


@pytest.mark.parametrize(
    ("given", "expires_in_ms"), [({"expires_in_s": 7200}, 2 * HOUR_MS), ({}, 24 * HOUR_MS)]
)
async def test_the_payloads_of_a_batch_outlive_its_records_whatever_its_expiry(
    store: Store, given: dict[str, int], expires_in_ms: int
) -> None:
    service = build(store, Limits(retain_ms=HOUR_MS))
    batch_id = await ended(service, **given)
    record = await store.batch(batch_id)
    assert record.expires_ms - record.created_ms == expires_in_ms
    lives_ms = await store.ttls_ms()
    for name in (order_key(record.nonce, 0), input_key(record.nonce, 0)):
        life_ms = expires_in_ms + HOUR_MS + HOUR_MS
        assert life_ms - 10_000 < lives_ms[name] <= life_ms
    assert expires_in_ms + HOUR_MS - 10_000 < lives_ms[keys.batch(batch_id)] <= expires_in_ms + HOUR_MS


async def test_the_expiry_is_part_of_what_an_idempotency_key_stands_for(service: Service) -> None:
    batch_id = await create(service, idempotency_key="k", expires_in_s=100)
    assert await create(service, idempotency_key="k", expires_in_s=100) == batch_id
    for other in ({"expires_in_s": 101}, {}):
        with pytest.raises(Conflict):
            await create(service, idempotency_key="k", **other)


async def test_a_batch_that_is_deleted_while_its_failed_requests_are_read_is_not_retried_in_part(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_mistral = [{**request, "metadata": {}} for request in REQUESTS]
    batch_id = await ended(service, requests=to_mistral)
    shards = service.store.batches.shards

    async def after_a_delete(*wanted: Any) -> Any:
        monkeypatch.setattr(service.store.batches, "shards", shards)
        await service.operations.handle({"operation": "delete", "id": batch_id})
        return await shards(*wanted)

    monkeypatch.setattr(service.store.batches, "shards", after_a_delete)
    with pytest.raises(NotFound):
        await retry(service, batch_id)
    assert await records(service) == set()
