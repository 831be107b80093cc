"""`results`: a page of lines in request order, merged from the shards' outputs and cut by bytes. `retry_failed`: the
requests that failed, as they are stored.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from shared.core import codec
from shared.core.lifecycle import ShardState
from shared.core.paging import Place, parse_page, part_of, places
from shared.core.sharding import ModelPlan, PartPlan, Runs
from shared.core.shards import BatchRecord, ShardRecord
from shared.core.views import absent_line
from shared.errors import StorageUnavailable
from shared.flow.outputs import ShardOutput
from shared.flow.submission import RoutedRequest
from shared.ports.payloads import Payloads, input_key, order_key, output_key
from shared.ports.state import Batches

# The first read of shards; each later one is twice as large while that gives little.
SHARDS_PER_READ, SHARDS_PER_READ_MAX = 8, 64
READ_BYTES = 1024 * 1024
RECORDS_PER_READ = 512
# So many requests without a line end a page too, before the end of a batch.
REQUESTS_PER_PAGE = 100_000

# What may go better another time. Whoever canceled a batch did not want the rest.
FAILED = ("errored", "expired")

Line = dict[str, Any]
# A shard's lines, None in the place of each that is not settled yet.
Lines = Sequence[Line | None]


@dataclass(frozen=True)
class _ShardLines:
    """`line_bytes` is what a line has on average: to measure each by itself would cost as much as to read it."""

    lines: Lines
    line_bytes: int

    @staticmethod
    def of(lines: Lines, size_bytes: int) -> _ShardLines:
        return _ShardLines(lines, size_bytes // max(1, len(lines)))


class Results:
    """`page_bytes` bounds a page's lines, to within a shard; a page has at least one line, if any is left."""

    def __init__(self, batches: Batches, payloads: Payloads, page_bytes: int) -> None:
        self._batches = batches
        self._payloads = payloads
        self._page_bytes = page_bytes

    async def page(self, batch: BatchRecord, token: str | None) -> dict[str, Any]:
        """`{"results": [...], "next_page": token|null}`. Requests of shards that are not settled (before the end)
        are left out."""
        start = parse_page(token, batch.total)
        lines: list[Line] = []
        size_bytes = 0
        async with aclosing(self._lines(batch, start)) as walk:
            async for index, shard, offset in walk:
                line = shard.lines[offset] if shard else None
                if shard is not None and line is not None:
                    size_bytes += shard.line_bytes
                    if lines and size_bytes > self._page_bytes:
                        return {"results": lines, "next_page": str(index)}
                    lines.append(line)
                elif index - start >= REQUESTS_PER_PAGE:
                    return {"results": lines, "next_page": str(index)}
        return {"results": lines, "next_page": None}

    async def failed(self, batch: BatchRecord) -> AsyncIterator[list[RoutedRequest]]:
        """The requests of an ended batch that failed, in request order, part by part. Holds no others beyond a few
        shards."""
        reader = _Reader(self._batches, self._payloads, batch)
        for number in range(len(await self._totals(batch))):
            plan = await self._part(batch, number)
            reader.turn_to(plan)
            if found := await self._failed(batch, number, plan, reader):
                yield found

    async def _failed(
        self, batch: BatchRecord, part: int, plan: PartPlan, reader: _Reader
    ) -> list[RoutedRequest]:
        failed: dict[Place, RoutedRequest] = {}
        for model in plan.models:
            offsets: dict[int, list[int]] = {}
            for number in model.numbers:
                shard = await reader.shard(number)
                if found := _failed(shard.lines if shard else ()):
                    offsets[number] = found
            failed.update(await self._stored(batch.nonce, model.model, offsets))
        if not failed:
            return []
        order = places(plan.models, await self._order(batch, part, plan), 0)
        return [failed[place] for place in order if place in failed]

    async def _lines(
        self, batch: BatchRecord, start: int
    ) -> AsyncGenerator[tuple[int, _ShardLines | None, int], None]:
        """Of request `start` and of every later one: its index, its shard's lines, and its place in them."""
        totals = await self._totals(batch)
        first, offset = part_of(totals, start)
        index = start
        reader = _Reader(self._batches, self._payloads, batch)
        for number in range(first, len(totals)):
            plan = await self._part(batch, number)
            reader.turn_to(plan)
            for place in places(plan.models, await self._order(batch, number, plan), offset):
                yield index, await reader.shard(place.shard), place.offset
                index += 1
            offset = 0

    async def _totals(self, batch: BatchRecord) -> list[int]:
        totals = await self._batches.part_totals(batch.id)
        if not totals:
            raise StorageUnavailable("the batch went away while it was read")
        return totals

    async def _part(self, batch: BatchRecord, number: int) -> PartPlan:
        plan = await self._batches.part(batch.id, number)
        if plan is None:
            raise StorageUnavailable("the batch went away while it was read")
        return plan

    async def _stored(
        self, nonce: str, model: str, offsets: Mapping[int, list[int]]
    ) -> dict[Place, RoutedRequest]:
        """The requests at these offsets of these shards."""
        stored: dict[Place, RoutedRequest] = {}
        numbers = list(offsets)
        for start in range(0, len(numbers), SHARDS_PER_READ):
            chunk = numbers[start : start + SHARDS_PER_READ]
            inputs = await self._payloads.get([input_key(nonce, number) for number in chunk])
            for number, data in zip(chunk, inputs, strict=True):
                if data is None:
                    raise StorageUnavailable("a shard's input is not in storage")
                requests = codec.decode(data)
                for offset in offsets[number]:
                    stored[Place(number, offset)] = RoutedRequest(model, json.dumps(requests[offset]))
        return stored

    async def _order(self, batch: BatchRecord, part: int, plan: PartPlan) -> Runs:
        if len(plan.models) == 1:
            return [(0, plan.requests)]
        [data] = await self._payloads.get([order_key(batch.nonce, part)])
        if data is None:
            raise StorageUnavailable("the order of a part is not in storage")
        return [(int(model), int(times)) for model, times in codec.decode(data)]


class _Reader:
    """Of one part after the other. Reads shards ahead, some at a time and per model, and forgets those that were passed
    before. Records are small, and a shard that is not settled needs nothing else, so many are read at a time."""

    def __init__(self, batches: Batches, payloads: Payloads, batch: BatchRecord) -> None:
        self._batches = batches
        self._payloads = payloads
        self._batch = batch
        self._part = PartPlan(0, [])
        self._count = SHARDS_PER_READ
        self._held: dict[str, dict[int, _ShardLines | None]] = {}
        self._records: dict[str, tuple[range, dict[int, ShardRecord]]] = {}

    def turn_to(self, part: PartPlan) -> None:
        self._part = part
        self._held.clear()
        self._records.clear()

    async def shard(self, number: int) -> _ShardLines | None:
        """The lines of a shard of the part, None where it is not settled; some of them where it was split."""
        for held in self._held.values():
            if number in held:
                return held[number]
        plan = self._part.model_of(number)
        self._held.pop(plan.model, None)
        held = self._held[plan.model] = await self._read(plan, _ahead(plan, number, self._count))
        return held[number]

    async def _read(self, plan: ModelPlan, numbers: range) -> dict[int, _ShardLines | None]:
        records = await self._with_halves(await self._records_of(plan, numbers), numbers)
        keys = {number: self._key(number, record) for number, record in records.items()}
        wanted = [key for key in dict.fromkeys(keys.values()) if key is not None]
        found = dict(zip(wanted, await self._payloads.get(wanted), strict=True))
        if sum(len(data) for data in found.values() if data is not None) < READ_BYTES:
            self._count = min(2 * self._count, SHARDS_PER_READ_MAX)

        def lines(number: int) -> _ShardLines | None:
            record, key = records[number], keys[number]
            if record is not None and record.halves:
                return _joined([lines(half) or _unsettled(records[half]) for half in record.halves])
            return None if key is None else self._lines(plan.model, record, found[key])

        return {number: lines(number) for number in numbers}

    async def _with_halves(
        self, records: Mapping[int, ShardRecord], numbers: Iterable[int]
    ) -> dict[int, ShardRecord | None]:
        """The records of these shards and of all that they were split into; None where nobody claimed one."""
        found = {number: records.get(number) for number in numbers}
        halves = _halves(found.values())
        while halves:
            split = await self._batches.shards(self._batch.id, halves)
            if len(split) < len(halves):
                raise StorageUnavailable("the batch went away while it was read")
            found.update(split)
            halves = _halves(split.values())
        return found

    async def _records_of(self, plan: ModelPlan, numbers: range) -> dict[int, ShardRecord]:
        covered, records = self._records.get(plan.model, (range(0), {}))
        if numbers[-1] not in covered:
            covered = _ahead(plan, numbers[0], RECORDS_PER_READ)
            records = await self._batches.shards(self._batch.id, covered)
            self._records[plan.model] = covered, records
        return records

    def _key(self, number: int, record: ShardRecord | None) -> str | None:
        """Where a shard's lines come from: its output, or its input where it has none; None before it is settled."""
        nonce = self._batch.nonce
        if record is None:
            return input_key(nonce, number) if self._batch.stop else None
        if record.state is not ShardState.SETTLED:
            return None
        if record.outcome:
            return input_key(nonce, record.input_shard)
        return output_key(nonce, number, record.epoch)

    def _lines(self, model: str, record: ShardRecord | None, data: bytes | None) -> _ShardLines:
        if data is None:
            raise StorageUnavailable("a shard's payload is not in storage")
        if record is not None and not record.outcome:
            output = ShardOutput.parse(data, record.requests)
            if output is None:
                raise StorageUnavailable("a shard's output in storage is broken")
            return _ShardLines.of(output.lines, codec.text_bytes(data))
        outcome, message = (record.outcome, record.error) if record else (self._batch.stop, "")
        requests = codec.decode(data)
        if record is not None:
            requests = requests[record.offset : record.offset + record.requests]
        lines = [absent_line(request["custom_id"], model, outcome, message) for request in requests]
        return _ShardLines.of(lines, len(json.dumps(lines)))


def _halves(records: Iterable[ShardRecord | None]) -> list[int]:
    return [half for record in records if record is not None for half in record.halves]


def _unsettled(record: ShardRecord | None) -> _ShardLines:
    return _ShardLines([None] * (record.requests if record is not None else 0), 0)


def _joined(halves: Sequence[_ShardLines]) -> _ShardLines:
    size_bytes = sum(half.line_bytes * len(half.lines) for half in halves)
    return _ShardLines.of([line for half in halves for line in half.lines], size_bytes)


def _failed(lines: Lines) -> list[int]:
    """At which places of a shard a request failed."""
    return [offset for offset, line in enumerate(lines) if line and line["status"] in FAILED]


def _ahead(plan: ModelPlan, number: int, count: int) -> range:
    """Up to `count` shards of one model, from `number` on."""
    return range(number, min(number + count, plan.numbers.stop))
