"""The operations of the batch handler, by name. Each has its answer first; then it helps everybody's batches along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from time import monotonic
from typing import Any

from shared.core.lifecycle import BatchPhase
from shared.core.requests import (
    BareInput,
    BatchInput,
    ListInput,
    ResultsInput,
    RetryInput,
    WebhookInput,
    check_id,
    parse,
)
from shared.core.shards import BatchRecord
from shared.core.views import status_view
from shared.errors import BatchNotEnded, Conflict, InvalidRequest, NotFound
from shared.flow.caretaker import Caretaker
from shared.flow.feeder import Feeder
from shared.flow.observe import Observer
from shared.flow.removal import remove_payloads
from shared.flow.results import FAILED, Results
from shared.flow.submission import RoutedRequest, Submission, Submitter
from shared.flow.uploads import Uploader
from shared.ports.payloads import Payloads
from shared.ports.state import Batches, Work

Payload = Mapping[str, Any]

# How long an answer may wait for the help it gives; what is left goes on in the background.
HELP_BUDGET_S = 1.0
RECONCILE_BUDGET_S = 20.0


class Operations:
    def __init__(
        self,
        batches: Batches,
        payloads: Payloads,
        submitter: Submitter,
        uploader: Uploader,
        results: Results,
        feeder: Feeder,
        caretaker: Caretaker,
        observer: Observer,
    ) -> None:
        self._batches = batches
        self._payloads = payloads
        self._submitter = submitter
        self._uploader = uploader
        self._results = results
        self._feeder = feeder
        self._caretaker = caretaker
        self._observer = observer
        self._retrying = asyncio.Lock()
        self._helping: set[asyncio.Future[Any]] = set()
        self._by_name: dict[str, Callable[[Payload], Awaitable[dict[str, Any]]]] = {
            "create": self.create,
            "upload": self.upload,
            "status": self.status,
            "results": self.results,
            "cancel": self.cancel,
            "delete": self.delete,
            "retry_failed": self.retry_failed,
            "list": self.list,
            "reconcile": self.reconcile,
            "webhook": self.webhook,
            "health": self.health,
            "metrics": self.metrics,
        }

    async def handle(self, payload: Any, job: str | None = None) -> dict[str, Any]:
        """The output of one job of the batch handler. RunPod may deliver a job twice, under the same id: `job` makes a
        create of it one batch, also where its caller gave no key. Raises the error tree's errors."""
        if not isinstance(payload, Mapping):
            raise InvalidRequest("input: must be an object with an operation", param="input")
        name = payload.get("operation")
        if not name:
            raise InvalidRequest("operation: required field is missing", param="operation")
        if not isinstance(name, str):
            raise InvalidRequest("operation: must be text", param="operation")
        operation = self._by_name.get(name)
        if operation is None:
            known = ", ".join(self._by_name)
            raise InvalidRequest(
                f"operation: unknown operation {name!r:.100}; known: {known}", param="operation"
            )
        if name == "create":
            return await self.create(payload, job)
        return await operation(payload)

    async def create(self, payload: Payload, job: str | None = None) -> dict[str, Any]:
        if "upload" in payload:
            return await self._feed(await self._uploader.submit(payload))
        return await self._feed(await self._submitter.submit(payload, job))

    async def upload(self, payload: Payload) -> dict[str, Any]:
        return await self._uploader.upload(payload)

    async def status(self, payload: Payload) -> dict[str, Any]:
        return status_view(await self._find(check_id(parse(BatchInput, dict(payload)).id)))

    async def results(self, payload: Payload) -> dict[str, Any]:
        wanted = parse(ResultsInput, dict(payload))
        batch = await self._find(check_id(wanted.id))
        if not wanted.partial:
            _check_ended(batch)
        page = await self._results.page(batch, wanted.page)
        # A batch that went away meanwhile would have left holes in the page.
        await self._find(batch.id)
        return page

    async def cancel(self, payload: Payload) -> dict[str, Any]:
        batch_id = check_id(parse(BatchInput, dict(payload)).id)
        stopped = await self._batches.stop(batch_id, "canceled")
        if stopped.verdict == "gone":
            raise _unknown(batch_id)
        if stopped.verdict == "ended":
            raise Conflict(f"Batch {batch_id} has ended already", param="id")
        if stopped.jobs:
            jobs = self._caretaker.cancel_jobs(list(stopped.jobs))
            await self._help([asyncio.ensure_future(jobs)])
        return status_view(await self._find(batch_id))

    async def delete(self, payload: Payload) -> dict[str, Any]:
        batch_id = check_id(parse(BatchInput, dict(payload)).id)
        deletion = await self._batches.delete(batch_id, "mark")
        if deletion.verdict == "gone":
            raise _unknown(batch_id)
        if deletion.verdict == "open":
            raise Conflict(f"Batch {batch_id} has not ended; cancel it first", param="id")
        if deletion.verdict == "marked":
            # Records go last: a deletion that is cut short is resumed by the next one.
            await remove_payloads(self._batches, self._payloads, batch_id, deletion.nonce)
            await self._batches.delete(batch_id, "finish")
        return {"id": batch_id, "deleted": True}

    async def retry_failed(self, payload: Payload) -> dict[str, Any]:
        """A new batch of the requests that failed. The same one however often it is asked for."""
        wanted = parse(RetryInput, dict(payload))
        first = await self._find(check_id(wanted.id))
        _check_ended(first)
        if not any(first.settled[status] for status in FAILED):
            raise InvalidRequest(f"id: no request of {first.id} errored or expired", param="id")
        # One at a time, so that many calls neither read the same again nor add up in memory.
        async with self._retrying:
            made = await self._submitter.find_retry(first.id, wanted.idempotency_key)
            if made is None:
                made = await self._submitter.retry(first, self._failed(first), wanted.idempotency_key)
        return await self._feed(made)

    async def _failed(self, batch: BatchRecord) -> AsyncIterator[list[RoutedRequest]]:
        async for part in self._results.failed(batch):
            yield part
        # One that went away meanwhile would be retried in part.
        await self._find(batch.id)

    async def list(self, payload: Payload) -> dict[str, Any]:
        wanted = parse(ListInput, dict(payload))
        records, token = await self._batches.listing(wanted.limit, wanted.page)
        return {"batches": [status_view(record) for record in records], "next_page": token}

    async def reconcile(self, payload: Payload) -> dict[str, Any]:
        """Repair and feed until nothing is left to do or the budget is spent: what a schedule calls."""
        parse(BareInput, dict(payload))
        end_s = monotonic() + RECONCILE_BUDGET_S
        rounds = 1
        while await self._caretaker.tick(force=True) and monotonic() < end_s:
            rounds += 1
        # Nothing else may be running: what was claimed is submitted before this worker may go.
        if feeding := self._feeder.under_way():
            await asyncio.wait(feeding, timeout=RECONCILE_BUDGET_S)
        return {"rounds": rounds}

    async def webhook(self, payload: Payload) -> dict[str, Any]:
        body = parse(WebhookInput, dict(payload)).body
        lease = self._caretaker.read_hint(json.dumps(body))
        if lease is not None:
            await self._help([asyncio.ensure_future(self._caretaker.check(lease))])
        return {"accepted": True}

    async def health(self, payload: Payload) -> dict[str, Any]:
        parse(BareInput, dict(payload))
        return await self._observer.health()

    async def metrics(self, payload: Payload) -> dict[str, Any]:
        parse(BareInput, dict(payload))
        return await self._observer.metrics()

    async def _feed(self, made: Submission) -> dict[str, Any]:
        await self._help(self._feeder.kick(model, [made.head]) for model in made.models)
        return {"id": made.id}

    async def _find(self, batch_id: str) -> BatchRecord:
        """One batch, in one round trip; where that found work to do, it is done on the way out."""
        swept = await self._batches.sweep(batch_id)
        if swept.work is not None and _has_work(swept.work):
            await self._help([asyncio.ensure_future(self._caretaker.carry_out(swept.work))])
        if swept.batch is None:
            raise _unknown(batch_id)
        return swept.batch

    async def _help(self, tasks: Iterable[asyncio.Future[Any]]) -> None:
        waited = set(tasks)
        if not waited:
            return
        for task in waited:
            self._helping.add(task)
            task.add_done_callback(self._helping.discard)
        await asyncio.wait(waited, timeout=HELP_BUDGET_S)


def _has_work(work: Work) -> bool:
    return bool(work.hints or work.leases or work.expired or work.models)


def _check_ended(batch: BatchRecord) -> None:
    if batch.phase is not BatchPhase.ENDED:
        raise BatchNotEnded("Batch not yet complete", param="id")


def _unknown(batch_id: str) -> NotFound:
    return NotFound(f"Batch {batch_id} not found", param="id")
