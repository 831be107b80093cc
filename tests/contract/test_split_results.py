"""Results of a batch with a split shard: every line in its place, whatever became of its part."""

from typing import Any

import pytest
import pytest_asyncio

from shared.adapters.payloads import TieredPayloads
from shared.core import codec
from shared.core.views import succeeded_line
from shared.errors import NotFound, StorageUnavailable
from shared.flow.outputs import ShardOutput
from shared.flow.results import Results
from shared.ports.payloads import input_key, output_key
from shared.ports.state import Claim, ShardRef
from tests.contract.service import PAGE_BYTES, Service
from tests.contract.state import MISTRAL

# The first shard is split into [0, 1] and [2, 3, 4]; the second one is whole.
IDS = ["id-0", "id-1", "id-2", "id-3", "id-4", "whole-0", "whole-1"]
SIZES = [5, 2]


class Batch:
    """A batch whose first shard was split, and what it stands on."""

    def __init__(self, service: Service, batch_id: str, nonce: str) -> None:
        self.store = service.store
        self.payloads: TieredPayloads = service.payloads
        self.id = batch_id
        self._nonce = nonce

    async def settle(self, claim: Claim, *names: str) -> None:
        ref = claim.ref
        shard = await self.store.shard(ref)
        assert shard is not None
        output = ShardOutput([succeeded_line(name, "mistral", f"of {name}", 3, 4) for name in names], 5)
        inline = self.payloads.inline(output.encode())
        assert inline is not None
        key = output_key(self._nonce, ref.shard, shard.epoch)
        assert await self.store.runs.settle(ref, shard.epoch, MISTRAL, key, output.outcome(), inline)

    async def lines(self, page_bytes: int = PAGE_BYTES) -> list[dict[str, Any]]:
        """Of all pages."""
        results = Results(self.store.batches, self.payloads, page_bytes)
        record = await self.store.batch(self.id)
        found: list[dict[str, Any]] = []
        token = None
        while True:
            page = await results.page(record, token)
            found += page["results"]
            token = page["next_page"]
            if token is None:
                return found

    async def statuses(self) -> dict[str, str]:
        return {line["custom_id"]: line["status"] for line in await self.lines()}


@pytest_asyncio.fixture
async def batch(service: Service) -> Batch:
    ref = await service.store.split({"mistral": SIZES})
    nonce = (await service.store.batch(ref.batch)).nonce
    shards = {0: IDS[:5], 1: IDS[5:]}
    inputs = {
        input_key(nonce, n): codec.encode([{"custom_id": name} for name in ids]) for n, ids in shards.items()
    }
    await service.payloads.put(inputs, 60_000)
    return Batch(service, ref.batch, nonce)


def succeeded(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "succeeded")


async def test_nothing_of_a_split_shard_is_final_before_a_part_of_it_is(batch: Batch) -> None:
    assert await batch.lines() == []


async def test_a_part_that_is_settled_has_its_lines_in_their_place(batch: Batch) -> None:
    _, second, whole = await batch.store.run()
    await batch.settle(whole, *IDS[5:])
    await batch.settle(second, *IDS[2:5])
    assert list((await batch.statuses()).items()) == list(succeeded(*IDS[2:]).items())


@pytest.mark.parametrize("page_bytes", [1, 400, PAGE_BYTES])
async def test_a_settled_batch_has_every_line_in_request_order_on_pages_of_any_size(
    batch: Batch, page_bytes: int
) -> None:
    first, second, whole = await batch.store.run()
    await batch.settle(second, *IDS[2:5])
    await batch.settle(whole, *IDS[5:])
    await batch.settle(first, *IDS[:2])
    lines = await batch.lines(page_bytes)
    assert [line["custom_id"] for line in lines] == IDS
    assert [line["message"]["content"][0]["text"] for line in lines] == [f"of {name}" for name in IDS]


async def test_parts_of_parts_are_in_their_place_too(batch: Batch) -> None:
    first, second, whole = await batch.store.run()
    await batch.settle(first, *IDS[:2])
    await batch.settle(whole, *IDS[5:])
    assert await batch.store.requeue(second.ref, blame=True) == "split"
    single, pair = await batch.store.run()
    await batch.settle(pair, *IDS[3:5])
    await batch.settle(single, IDS[2])
    assert list((await batch.statuses()).items()) == list(succeeded(*IDS).items())


async def test_a_part_without_an_output_has_its_own_custom_ids_and_the_reason(batch: Batch) -> None:
    first, second, whole = await batch.store.run()
    await batch.settle(whole, *IDS[5:])
    await batch.settle(first, *IDS[:2])
    assert await batch.store.requeue(second.ref, blame=True) == "split"
    single, pair = await batch.store.run()
    await batch.settle(pair, *IDS[3:5])
    assert await batch.store.requeue(single.ref, blame=True) == "queued"
    [single] = await batch.store.run()
    reason = "Its worker died"
    assert await batch.store.requeue(single.ref, blame=True, message=reason) == "errored"
    lines = await batch.lines()
    assert [line["custom_id"] for line in lines] == IDS
    [line] = [line for line in lines if line["status"] != "succeeded"]
    assert (line["custom_id"], line["status"], line["message"]) == ("id-2", "errored", None)
    assert line["error"] == {"type": "worker_error", "message": reason}


async def test_a_canceled_batch_has_a_line_for_every_request_of_every_part(batch: Batch) -> None:
    first, _ = await batch.store.run(2)
    await batch.settle(first, *IDS[:2])
    ref = ShardRef(batch.id, 3)
    assert await batch.store.requeue(ref) == "queued"
    await batch.store.batches.stop(batch.id, "canceled")
    canceled = dict.fromkeys(IDS[2:], "canceled")
    assert list((await batch.statuses()).items()) == list({**succeeded(*IDS[:2]), **canceled}.items())


async def test_what_failed_of_a_split_shard_is_retried_alone(batch: Batch) -> None:
    first, second, whole = await batch.store.run()
    await batch.settle(whole, *IDS[5:])
    await batch.settle(first, *IDS[:2])
    assert await batch.store.requeue(second.ref, blame=True) == "split"
    single, pair = await batch.store.run()
    await batch.settle(pair, *IDS[3:5])
    assert await batch.store.requeue(single.ref, blame=True) == "queued"
    [single] = await batch.store.run()
    assert await batch.store.requeue(single.ref, blame=True, message="died") == "errored"
    results = Results(batch.store.batches, batch.payloads, PAGE_BYTES)
    [failed] = [part async for part in results.failed(await batch.store.batch(batch.id))]
    assert [(request.model, request.text) for request in failed] == [("mistral", '{"custom_id": "id-2"}')]


async def test_a_batch_that_is_deleted_while_its_parts_are_looked_up_is_a_passing_fault_and_then_not_found(
    service: Service, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, whole = await batch.store.run()
    await batch.settle(second, *IDS[2:5])
    await batch.settle(whole, *IDS[5:])
    await batch.settle(first, *IDS[:2])
    shards = batch.store.batches.shards

    async def before_a_delete(*wanted: Any) -> Any:
        found = await shards(*wanted)
        monkeypatch.setattr(batch.store.batches, "shards", shards)
        await service.operations.handle({"operation": "delete", "id": batch.id})
        return found

    monkeypatch.setattr(batch.store.batches, "shards", before_a_delete)
    results = {"operation": "results", "id": batch.id}
    with pytest.raises(StorageUnavailable):
        await service.operations.handle(results)
    with pytest.raises(NotFound):
        await service.operations.handle(results)
