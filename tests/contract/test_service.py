"""Operations over the real Redis, shards settled by hand: pages, partial results, deletion, health and metrics."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from shared.core import codec
from shared.core.shards import ShardRecord
from shared.core.views import succeeded_line
from shared.errors import EndpointUnavailable, NotFound, StateUnavailable
from shared.flow.outputs import ShardOutput
from shared.ports.payloads import input_key, output_key
from shared.ports.state import Endpoint, ShardRef
from tests.contract.service import PAGE_BYTES, Service
from tests.contract.state import ENDPOINTS, MISTRAL
from tests.fakes import SubmittedJob


async def create(service: Service, hints: list[str], **changes: Any) -> str:
    requests = [
        {
            "custom_id": f"id-{number}",
            "params": {"messages": [{"role": "user", "content": "hi"}]},
            "metadata": {"model_hint": hint},
        }
        for number, hint in enumerate(hints)
    ]
    made = await service.operations.handle({"operation": "create", "requests": requests, **changes})
    return str(made["id"])


async def settle(service: Service, batch_id: str, text: str = "text", limit: int = 99) -> None:
    """Runs what is submitted and feeds the next, as workers would: each line says which request it answers."""
    ran = 0
    for job in iter_submitted(service):
        ref = ShardRef(job.job_input["batch"], job.job_input["shard"])
        if ref.batch != batch_id or ran >= limit:
            continue
        await settle_shard(service, ref, job.endpoint, text)
        await service.feeder.kick(job.endpoint.model)
        ran += 1


def iter_submitted(service: Service) -> Iterator[SubmittedJob]:
    """Every job, those submitted meanwhile too."""
    done = 0
    while done < len(service.jobs.submitted):
        yield service.jobs.submitted[done]
        done += 1


async def settle_shard(service: Service, ref: ShardRef, endpoint: Endpoint, text: str) -> None:
    shard = await service.store.shard(ref)
    assert shard is not None
    started = await service.store.runs.start(ref, shard.attempt, shard.job, "w1", endpoint)
    [data] = await service.payloads.get([input_key(started.nonce, ref.shard)])
    assert data is not None
    ids = [request["custom_id"] for request in codec.decode(data)]
    output = ShardOutput([succeeded_line(name, endpoint.model, f"{text} {name}", 3, 4) for name in ids], 5)
    key = output_key(started.nonce, ref.shard, started.epoch)
    inline = service.payloads.inline(output.encode()) or ""
    assert await service.store.runs.settle(ref, started.epoch, endpoint, key, output.outcome(), inline)


async def pages(service: Service, batch_id: str, **options: Any) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    token = None
    while True:
        call = {"operation": "results", "id": batch_id, "page": token, **options}
        answer = await service.operations.handle(call)
        found.append(answer["results"])
        token = answer["next_page"]
        if token is None:
            return found


MIXED = ["mistral", "mistral", "llama-70b"] * 10 + ["llama-70b"] * 5


async def test_results_come_in_request_order_over_models_and_pages(service: Service) -> None:
    batch_id = await create(service, MIXED)
    await settle(service, batch_id, text="x" * 500)
    found = await pages(service, batch_id)
    assert len(found) > 4
    assert all(sum(len(str(line)) for line in page) < 1.1 * PAGE_BYTES for page in found)
    lines = [line for page in found for line in page]
    assert [line["custom_id"] for line in lines] == [f"id-{number}" for number in range(len(MIXED))]
    assert [line["model"] for line in lines] == MIXED
    assert all(line["message"]["content"][0]["text"].endswith(line["custom_id"]) for line in lines)
    assert [line for page in await pages(service, batch_id) for line in page] == lines


async def test_a_line_larger_than_a_page_is_a_page(service: Service) -> None:
    batch_id = await create(service, ["mistral"] * 3)
    await settle(service, batch_id, text="x" * 2 * PAGE_BYTES)
    assert [len(page) for page in await pages(service, batch_id)] == [1, 1, 1]


async def test_a_batch_that_fits_is_one_page(service: Service) -> None:
    batch_id = await create(service, ["mistral"] * 3)
    await settle(service, batch_id)
    assert [len(page) for page in await pages(service, batch_id)] == [3]


async def test_partial_results_are_those_of_settled_shards(service: Service) -> None:
    batch_id = await create(service, ["mistral"] * 20)
    await settle(service, batch_id, limit=1)
    lines = [line for page in await pages(service, batch_id, partial=True) for line in page]
    assert 0 < len(lines) < 20
    assert [line["custom_id"] for line in lines] == [f"id-{number}" for number in range(len(lines))]


async def test_partial_results_of_a_batch_that_has_hardly_begun_take_few_reads(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await service.store.create({"llama-70b": [8] * 2000})
    reads = count_calls(service, monkeypatch)
    assert await pages(service, batch.id, partial=True) == [[]]
    assert len(reads) < 10


def count_calls(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The batches whose shards were read, one entry a read."""
    reads: list[str] = []
    read = service.store.batches.shards

    async def counted(batch_id: str, numbers: Sequence[int]) -> dict[int, ShardRecord]:
        reads.append(batch_id)
        return await read(batch_id, numbers)

    monkeypatch.setattr(service.store.batches, "shards", counted)
    return reads


async def test_a_batch_that_is_deleted_while_its_results_are_read_gives_no_page_with_holes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await create(service, ["mistral"])
    await settle(service, batch_id)
    read = service.store.batches.shards

    async def too_late(batch_id: str, numbers: Sequence[int]) -> dict[int, ShardRecord]:
        monkeypatch.setattr(service.store.batches, "shards", read)
        await service.operations.handle({"operation": "delete", "id": batch_id})
        return await read(batch_id, numbers)

    monkeypatch.setattr(service.store.batches, "shards", too_late)
    with pytest.raises(NotFound):
        await pages(service, batch_id)


async def test_a_canceled_batch_has_a_line_for_every_request(service: Service) -> None:
    batch_id = await create(service, MIXED)
    await settle(service, batch_id, limit=1)
    status = await service.operations.handle({"operation": "cancel", "id": batch_id})
    assert status["processing_status"] == "ended"
    lines = [line for page in await pages(service, batch_id) for line in page]
    assert [line["custom_id"] for line in lines] == [f"id-{number}" for number in range(len(MIXED))]
    canceled = [line for line in lines if line["status"] == "canceled"]
    assert len(canceled) == status["counts"]["canceled"] > 0
    assert all(line["error"]["type"] == "canceled" and line["message"] is None for line in canceled)
    assert service.jobs.canceled


async def test_a_deleted_batch_leaves_nothing_but_its_note(service: Service) -> None:
    batch_id = await create(service, MIXED)
    await settle(service, batch_id)
    deletion = {"operation": "delete", "id": batch_id}
    for _ in range(2):
        assert await service.operations.handle(deletion) == {"id": batch_id, "deleted": True}
    left = [name for name in await service.store.ttls_ms() if batch_id in name or name.startswith("payload")]
    assert left == [f"deleted:{batch_id}"]


async def test_a_refusal_of_runpod_leaves_the_batch_collected_and_it_proceeds_later(service: Service) -> None:
    service.jobs.refusals.extend([EndpointUnavailable("429", retry_after_s=0.0)] * 8)
    batch_id = await create(service, ["mistral"] * 8)
    status = {"operation": "status", "id": batch_id}
    assert (await service.operations.handle(status))["processing_status"] == "collected"
    service.jobs.refusals.clear()
    await service.store.redis.execute("DEL", f"rest:{MISTRAL.id}")
    await service.operations.handle({"operation": "reconcile"})
    await service.feeder.kick("mistral")
    await settle(service, batch_id)
    assert (await service.operations.handle(status))["processing_status"] == "ended"


async def test_a_reconcile_that_has_answered_has_submitted_what_there_is_room_for(service: Service) -> None:
    await service.store.create({"mistral": [4] * 20})
    await service.operations.handle({"operation": "reconcile"})
    waiting, _ = await service.store.leases()
    assert len(service.jobs.submitted) == len(waiting) > 1


async def test_health_says_what_answers(service: Service) -> None:
    health = await service.operations.handle({"operation": "health"})
    assert health["ready"] is True
    assert health["uptime_s"] >= 0
    assert set(health["endpoints"]) == {endpoint.model for endpoint in ENDPOINTS}
    assert health["endpoints"]["mistral"]["id"] == MISTRAL.id


CLOSED = {"state": "closed", "cause": None, "resting_s": 0.0, "refusals": 0, "worker_deaths": 0}


async def die(service: Service) -> None:
    """Of a worker at an endpoint that never settled anything."""
    await service.store.create()
    await service.store.die()


async def test_health_shows_the_breaker_of_each_endpoint(service: Service) -> None:
    health = await service.operations.handle({"operation": "health"})
    assert [endpoint["breaker"] for endpoint in health["endpoints"].values()] == [CLOSED, CLOSED]


async def test_an_endpoint_whose_workers_die_is_not_ready(service: Service) -> None:
    await die(service)
    health = await service.operations.handle({"operation": "health"})
    assert (health["ready"], health["redis"]["ok"]) == (False, True)
    breaker = health["endpoints"]["mistral"]["breaker"]
    assert 0 < breaker.pop("resting_s") <= 1
    assert breaker == {"state": "open", "cause": "deaths", "refusals": 0, "worker_deaths": 1}
    assert health["endpoints"]["llama-70b"]["breaker"] == CLOSED


async def test_an_endpoint_that_refuses_is_shown_and_does_not_make_the_service_unready(
    service: Service,
) -> None:
    await service.store.queue.rest(MISTRAL, 20)
    health = await service.operations.handle({"operation": "health"})
    breaker = health["endpoints"]["mistral"]["breaker"]
    assert (breaker["state"], breaker["cause"], breaker["refusals"]) == ("open", "refused", 1)
    assert 15 < breaker["resting_s"] <= 20
    assert health["ready"] is True


async def test_without_redis_health_still_answers_and_knows_no_breaker(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any) -> Any:
        raise StateUnavailable("Redis did not answer")

    monkeypatch.setattr(service.store.redis, "run", fail)
    health = await service.operations.handle({"operation": "health"})
    assert (health["ready"], health["redis"]) == (False, {"ok": False, "error": "Redis did not answer"})
    assert [endpoint["breaker"] for endpoint in health["endpoints"].values()] == [None, None]


async def test_metrics_have_the_breaker_and_the_deaths_of_each_endpoint(service: Service) -> None:
    await die(service)
    metrics = await service.operations.handle({"operation": "metrics"})
    values = {(item["name"], item["labels"].get("model")): item["value"] for item in metrics["metrics"]}
    for name in ("endpoint_breaker_open", "endpoint_worker_deaths"):
        assert (values[name, "mistral"], values[name, "llama-70b"]) == (1, 0)


async def test_metrics_count_what_was_settled_by_model(service: Service) -> None:
    batch_id = await create(service, MIXED)
    await settle(service, batch_id)
    metrics = await service.operations.handle({"operation": "metrics"})
    values = {
        (item["name"], item["labels"].get("model"), item["labels"].get("outcome")): item["value"]
        for item in metrics["metrics"]
        if "le" not in item["labels"]
    }
    assert values["requests_total", "mistral", "succeeded"] == 20
    assert values["requests_total", "llama-70b", "succeeded"] == 15
    assert values["output_tokens_total", "mistral", None] == 80
    assert values["batch_latency_seconds_count", None, None] == 1
    assert values["batches_open", None, None] == 0
    assert 'llm_batch_requests_total{model="mistral",outcome="succeeded"} 20\n' in metrics["prometheus"]


@pytest.mark.parametrize("body", [{}, {"status": "COMPLETED"}])
async def test_a_webhook_points_at_its_shard_and_its_word_is_not_taken(
    service: Service, body: dict[str, Any]
) -> None:
    batch_id = await create(service, ["mistral"])
    [job] = service.jobs.submitted
    await service.operations.handle({"operation": "webhook", "body": {**body, "input": dict(job.job_input)}})
    assert service.jobs.asked == [(MISTRAL.id, "fake-1")]
    status = await service.operations.handle({"operation": "status", "id": batch_id})
    assert status["processing_status"] == "submitted"


async def test_a_large_create_is_prepared_beside_the_event_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = threading.Event()
    encode = codec.encode_items

    def waits_for_the_loop(items: Sequence[str]) -> bytes:
        assert prepared.wait(5), "the event loop stands still"
        return encode(items)

    monkeypatch.setattr(codec, "encode_items", waits_for_the_loop)
    creating = asyncio.create_task(create(service, ["mistral"]))
    await service.operations.handle({"operation": "health"})
    prepared.set()
    await creating


async def test_a_create_whose_job_is_delivered_twice_makes_one_batch(service: Service) -> None:
    params = {"messages": [{"role": "user", "content": "hi"}]}
    call = {"operation": "create", "stage": "email", "requests": [{"custom_id": "a", "params": params}]}
    first, again = [await service.operations.handle(call, "sync-1-u1") for _ in range(2)]
    other = await service.operations.handle(call, "sync-2-u1")
    assert first == again != other
