"""Deletion with payloads in both tiers: nothing is left, whatever ran before and wherever it was cut short."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
import pytest_asyncio

from shared.adapters.payloads import TieredPayloads
from shared.adapters.s3 import S3
from shared.core import codec
from shared.core.shards import ShardRecord
from shared.core.views import failed_line, succeeded_line
from shared.errors import NotFound, PlatformError, StateUnavailable, StorageUnavailable
from shared.flow.outputs import ShardOutput
from shared.flow.submission import Limits
from shared.ports.payloads import input_key, output_key
from shared.ports.state import Deletion, Endpoint, ShardRef
from tests.contract.service import Service, build
from tests.contract.state import Store
from tests.contract.test_payloads import config
from tests.contract.test_service import iter_submitted
from tests.local_cloud.storage import Storage, running_storage

# The first of each shard fails; every payload but the order is larger than what stays in Redis.
SHARD = 8
INLINE_BYTES = 200
TEXT = "".join(chr(33 + 7 * n % 90) for n in range(200))


@dataclass(frozen=True)
class Tiered:
    """A service whose payloads are in S3, and what is in there."""

    service: Service
    bucket: Any

    def objects(self) -> set[str]:
        return {item.key for item in self.bucket.objects.all()}

    async def call(self, operation: str, batch_id: str) -> dict[str, Any]:
        return await self.service.operations.handle({"operation": operation, "id": batch_id})

    async def left(self) -> set[str]:
        """What batches and payloads still have in Redis."""
        names = await self.service.store.ttls_ms()
        return {name for name in names if name.partition(":")[0] in ("batch", "payload")}


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with running_storage() as running:
        yield running


@pytest_asyncio.fixture
async def tiered(store: Store, storage: Storage) -> AsyncIterator[Tiered]:
    resource = boto3.resource(
        "s3",
        endpoint_url=storage.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=storage.access_key_id,
        aws_secret_access_key=storage.secret_access_key,
    )
    bucket = resource.Bucket(storage.bucket)
    bucket.objects.delete()
    s3 = S3(config(storage))
    yield Tiered(build(store, Limits(), payloads=TieredPayloads(store.redis, s3, INLINE_BYTES)), bucket)
    s3._threads.shutdown()


async def ended(tiered: Tiered, batch_id: str | None = None) -> str:
    """A batch of which each shard was run twice: the first worker had stored its output and was lost."""
    service = tiered.service
    if batch_id is None:
        requests = [
            {
                "custom_id": f"id-{number}",
                "params": {"messages": [{"role": "user", "content": f"{TEXT} {number}"}]},
                "metadata": {"model_hint": ("mistral", "llama-70b")[number % 2]},
            }
            for number in range(4 * SHARD)
        ]
        made = await service.operations.handle({"operation": "create", "requests": requests})
        batch_id = str(made["id"])
    for job in iter_submitted(service):
        ref = ShardRef(job.job_input["batch"], job.job_input["shard"])
        shard = await service.store.shard(ref)
        if ref.batch != batch_id or shard is None:
            continue
        await run_and_lose(service, ref, shard, job.endpoint)
        epoch, key, output = await run_and_lose(service, ref, shard, job.endpoint)
        assert await service.store.runs.settle(ref, epoch, job.endpoint, key, output.outcome(), "")
        await service.feeder.kick(job.endpoint.model)
    return batch_id


async def run_and_lose(
    service: Service, ref: ShardRef, shard: ShardRecord, endpoint: Endpoint
) -> tuple[int, str, ShardOutput]:
    """A worker that ends between storing its output and settling: its epoch, and what it stored where."""
    started = await service.store.runs.start(ref, shard.attempt, shard.job, "w1", endpoint)
    [data] = await service.payloads.get([input_key(started.nonce, ref.shard)])
    assert data is not None
    output = output_of(codec.decode(data), endpoint.model)
    key = output_key(started.nonce, ref.shard, started.epoch)
    await service.payloads.put({key: output.encode()}, ttl_ms=60_000)
    return started.epoch, key, output


def output_of(requests: Sequence[dict[str, Any]], model: str) -> ShardOutput:
    ids = [request["custom_id"] for request in requests]
    lines = [succeeded_line(name, model, f"{TEXT} {name}", 3, 4) for name in ids[1:]]
    return ShardOutput([failed_line(ids[0], model, "errored", "api_error", TEXT), *lines], 5)


async def test_a_delete_removes_the_outputs_of_dead_epochs_too(tiered: Tiered) -> None:
    batch_id = await ended(tiered)
    outputs = {key for key in tiered.objects() if "/out/" in key}
    assert {key.rpartition("/")[2] for key in outputs} == {"1", "2"}
    await tiered.call("delete", batch_id)
    assert tiered.objects() == set()
    assert await tiered.left() == set()


async def test_a_delete_after_a_retry_takes_nothing_of_the_retry(tiered: Tiered) -> None:
    first = await ended(tiered)
    before = tiered.objects()
    retry = (await tiered.call("retry_failed", first))["id"]
    await ended(tiered, retry)
    of_retry = tiered.objects() - before
    assert of_retry
    await tiered.call("delete", first)
    assert tiered.objects() == of_retry
    failed = (await tiered.call("results", retry))["results"]
    assert len(failed) == (await tiered.call("status", retry))["counts"]["total"]
    await tiered.call("delete", retry)
    assert tiered.objects() == set()
    assert await tiered.left() == set()


@pytest.mark.parametrize("cut", ["before the payloads", "amid the payloads", "before the records"])
async def test_a_delete_that_was_cut_short_hides_the_batch_and_is_finished_by_the_next(
    tiered: Tiered, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    batch_id = await ended(tiered)
    with monkeypatch.context() as patched:
        cut_short(tiered.service, patched, cut)
        with pytest.raises(PlatformError):
            await tiered.call("delete", batch_id)
    for operation in ("status", "results", "cancel", "retry_failed"):
        with pytest.raises(NotFound):
            await tiered.call(operation, batch_id)
    assert await tiered.left() != set()
    for _ in range(3):
        assert await tiered.call("delete", batch_id) == {"id": batch_id, "deleted": True}
    assert tiered.objects() == set()
    assert await tiered.left() == set()


def cut_short(service: Service, patched: pytest.MonkeyPatch, cut: str) -> None:
    """The process ends, or its platform fails, at that moment of a delete."""
    remove, step_of = service.payloads.delete, service.store.batches.delete

    async def removes(keys: Sequence[str]) -> None:
        if cut == "amid the payloads":
            await remove(keys[: len(keys) // 2])
        raise StorageUnavailable("cut")

    async def steps(batch_id: str, step: Any) -> Deletion:
        if step == "finish":
            raise StateUnavailable("cut")
        return await step_of(batch_id, step)

    if cut == "before the records":
        patched.setattr(service.store.batches, "delete", steps)
    else:
        patched.setattr(service.payloads, "delete", removes)
