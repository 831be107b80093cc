"""The tick: carries out what a sweep found. Repairs leases, follows webhook hints, ends expired batches, feeds.

Bounded and idempotent, run by whoever comes by: operations, worker beats and the scheduled `reconcile`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Mapping
from typing import Any

from shared.core.cards import ModelCard
from shared.core.lifecycle import ShardState
from shared.core.repair import AskStatus, Drop, Patience, Renew, Requeue, decide
from shared.core.requests import check_id
from shared.core.retry import backoff_s
from shared.core.sharding import PARTS_MAX, SHARDS_PER_PART
from shared.core.shards import ShardRecord
from shared.errors import NotFound, PlatformError, StorageUnavailable
from shared.flow.feeder import Feeder
from shared.flow.outputs import ShardOutput
from shared.ports.jobs import Jobs
from shared.ports.payloads import Payloads, output_key
from shared.ports.state import Batches, Endpoint, Inspected, Lease, Repairs, Runs, ShardRef, Work

log = logging.getLogger(__name__)

CHECKS_AT_ONCE = 8
# More than any batch has, its splits included; a hint may name any number.
SHARDS_MAX = 2 * PARTS_MAX * SHARDS_PER_PART
IN_FLIGHT = (ShardState.CLAIMED, ShardState.SUBMITTED, ShardState.RUNNING)


class Caretaker:
    def __init__(
        self,
        batches: Batches,
        repairs: Repairs,
        runs: Runs,
        jobs: Jobs,
        payloads: Payloads,
        feeder: Feeder,
        cards: Mapping[str, ModelCard],
        endpoints: Mapping[str, Endpoint],
        patience: Patience,
    ) -> None:
        self._batches = batches
        self._repairs = repairs
        self._runs = runs
        self._jobs = jobs
        self._payloads = payloads
        self._feeder = feeder
        self._cards = cards
        self._endpoints = {endpoint.id: endpoint for endpoint in endpoints.values()}
        self._patience = patience
        self._gate = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def tick(self, *, force: bool = False) -> bool:
        """One round over all batches; True where anything was looked after. Never raises for the platform."""
        try:
            swept = await self._batches.sweep(None, force=force)
        except PlatformError as error:
            log.warning("tick skipped: %s", error)
            return False
        return await self.carry_out(swept.work)

    async def carry_out(self, work: Work | None) -> bool:
        """What a sweep found; nothing for None. Returns when all is done but the feeding, which is under way."""
        if work is None:
            return False
        for endpoint in work.endpoints:
            self._endpoints.setdefault(endpoint.id, endpoint)
        leases = {*work.leases, *(lease for body in work.hints if (lease := self.read_hint(body)))}
        looked = await asyncio.gather(*(self.check(lease) for lease in leases))
        stopped = [await self.stop(batch_id) for batch_id in work.expired]
        for model in work.models:
            self._feeder.kick(model)
        return any(looked) or any(stopped)

    async def stop(self, batch_id: str) -> bool:
        """Expire a batch that is past its time; False where that has to wait."""
        try:
            stopped = await self._batches.stop(batch_id, "expired")
        except PlatformError as error:
            log.warning("expiry postponed: %s", error, extra={"batch": batch_id})
            return False
        await self.cancel_jobs(list(stopped.jobs))
        return True

    async def cancel_jobs(self, jobs: list[tuple[str, str]]) -> None:
        """Cancel queued jobs at RunPod, best effort: one that starts all the same is refused."""
        known = [(self._endpoints[endpoint], job) for endpoint, job in jobs if endpoint in self._endpoints]
        await asyncio.gather(*(self._jobs.cancel(endpoint, job) for endpoint, job in known))

    def read_hint(self, body: str) -> Lease | None:
        """The lease that a webhook body points at; None where it says that all is well, or is not one of ours.

        Nothing in it is believed. The body echoes the webhook's URL and its token, so it goes no further than here.
        """
        try:
            event: Any = json.loads(body)
            job_input, output = event["input"], event.get("output")
            ref = ShardRef(check_id(str(job_input["batch"])), int(job_input["shard"]))
            lease = Lease(str(job_input["endpoint"]), ref)
            # The output of a model handler is the list of what it yielded: one summary.
            [summary] = output if isinstance(output, list) and len(output) == 1 else [None]
            settled = isinstance(summary, dict) and summary.get("state") in ("settled", "refused")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, NotFound):
            return None
        known = lease.endpoint in self._endpoints and 0 <= ref.shard < SHARDS_MAX
        return lease if known and not settled else None

    async def check(self, lease: Lease) -> bool:
        """Look at one lease and do what its facts ask for. Never raises for the platform: False, and the lease stays
        as it is, then."""
        try:
            async with self._gate:
                await self._check(lease)
        except PlatformError as error:
            log.warning(
                "repair postponed: %s", error, extra={"batch": lease.ref.batch, "shard": lease.ref.shard}
            )
            return False
        return True

    async def _check(self, lease: Lease) -> None:
        found = await self._repairs.inspect(lease)
        shard = found.shard
        # A hint may name any endpoint; only the shard's own can tell of its job.
        if shard is None or (shard.endpoint != lease.endpoint and shard.state in IN_FLIGHT):
            return
        timeout_ms = self._timeout_ms(shard)
        decision = decide(shard, found.now_ms, None, self._patience, timeout_ms)
        if isinstance(decision, AskStatus):
            job = await self._jobs.status(self._endpoints[lease.endpoint], shard.job)
            decision = decide(shard, found.now_ms, job, self._patience, timeout_ms)
        if isinstance(decision, Drop):
            await self._repairs.drop(lease)
        elif isinstance(decision, Renew):
            await self._repairs.renew(lease, decision.after_ms)
        elif isinstance(decision, Requeue):
            await self._requeue(lease, found, shard, decision)

    async def _requeue(self, lease: Lease, found: Inspected, shard: ShardRecord, decision: Requeue) -> None:
        if decision.cancel:
            await self._jobs.cancel(self._endpoints[lease.endpoint], shard.job)
        if shard.epoch and await self._adopt(lease, found, shard):
            return
        delay_ms = int(1000 * backoff_s(shard.losses + 1, random.random)) if decision.wait else 0
        verdict = await self._repairs.requeue(
            lease.ref,
            shard,
            delay_ms=delay_ms,
            blame=decision.blame,
            message=f"Its worker died each time it ran this request alone; the last time {decision.reason}",
        )
        extra = {"batch": lease.ref.batch, "shard": lease.ref.shard, "attempt": shard.attempt}
        log.warning("shard %s: %s", verdict, decision.reason, extra=extra)
        if verdict == "queued" and not delay_ms and shard.model in self._cards:
            self._feeder.kick(shard.model)

    async def _adopt(self, lease: Lease, found: Inspected, shard: ShardRecord) -> bool:
        """Settle with the output that the lost worker had already stored, if it is there and whole."""
        key = output_key(found.nonce, shard.number, shard.epoch)
        try:
            [data] = await self._payloads.get([key])
        except StorageUnavailable:
            # An object that storage refuses for good must not hold its shard for ever: it is computed again.
            if found.now_ms - shard.beat_ms < self._patience.storage_ms:
                raise
            return False
        output = ShardOutput.parse(data, shard.requests)
        if output is None:
            return False
        endpoint = self._endpoints[lease.endpoint]
        return await self._runs.settle(lease.ref, shard.epoch, endpoint, key, output.outcome(), "")

    def _timeout_ms(self, shard: ShardRecord) -> int:
        card = self._cards.get(shard.model)
        return int(1000 * card.execution_timeout_s(shard.requests, card.concurrency())) if card else 0
