"""Removes whatever storage has of a batch, a few hundred shards at a time: whoever repeats it finds what is left."""

from __future__ import annotations

from shared.core.shards import ShardRecord
from shared.ports.payloads import Payloads, ids_key, input_key, order_key, output_key
from shared.ports.state import Batches

SHARDS_PER_READ = 512


async def remove_payloads(batches: Batches, payloads: Payloads, batch_id: str, nonce: str) -> None:
    """The records of the batch must still be there. They say where its payloads are."""
    for number in range(len(await batches.part_totals(batch_id))):
        part = await batches.part(batch_id, number)
        await payloads.delete([order_key(nonce, number), ids_key(nonce, number)])
        for model in part.models if part else ():
            for start in range(0, model.shards, SHARDS_PER_READ):
                await _remove(
                    batches, payloads, batch_id, nonce, model.numbers[start : start + SHARDS_PER_READ]
                )


async def _remove(batches: Batches, payloads: Payloads, batch_id: str, nonce: str, numbers: range) -> None:
    keys = [input_key(nonce, number) for number in numbers]
    records = list((await batches.shards(batch_id, numbers)).values())
    while records:
        keys += [output_key(nonce, record.number, epoch) for record in records for epoch in _epochs(record)]
        halves = [half for record in records for half in record.halves]
        records = list((await batches.shards(batch_id, halves)).values())
    await payloads.delete(keys)


def _epochs(record: ShardRecord) -> range:
    return range(1, record.epoch + 1)
