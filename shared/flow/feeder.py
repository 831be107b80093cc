"""Feeding: hands shards from the fair queue to RunPod while an endpoint's window has room.

Follows every create, start and settle for the model concerned, and every sweep for all models. Whoever runs this
feeds everybody's batches, so a process never has to wait for another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from shared.core.cards import ModelCard
from shared.errors import EndpointUnavailable, PlatformError
from shared.ports.jobs import JobPolicy, Jobs
from shared.ports.state import Claim, Endpoint, Queue, Repairs, Submitted, claimed

log = logging.getLogger(__name__)

ROUNDS = 64
# RunPod deletes a job past its ttl, also one that runs: at its batch's expiry a shard still settles what it finished.
TTL_SLACK_MS = 60_000
MAX_TTL_MS = 7 * 24 * 3_600_000


def shard_input(claim: Claim, endpoint: Endpoint) -> dict[str, Any]:
    """The input of a shard's job: references only, because a webhook echoes it."""
    ref = claim.ref
    job_input = {
        "batch": ref.batch,
        "shard": ref.shard,
        "attempt": claim.attempt,
        "endpoint": endpoint.id,
    }
    return {
        **job_input,
        **({"alone": True} if claim.alone else {}),
        **({"canary": True} if claim.canary else {}),
    }


class Feeder:
    """`webhook_url` gives the URL that RunPod reports a batch's jobs to, None for no webhook."""

    def __init__(
        self,
        queue: Queue,
        repairs: Repairs,
        jobs: Jobs,
        endpoints: Mapping[str, Endpoint],
        cards: Mapping[str, ModelCard],
        webhook_url: Callable[[str], str | None],
    ) -> None:
        self._queue = queue
        self._repairs = repairs
        self._jobs = jobs
        self._endpoints = endpoints
        self._cards = cards
        self._webhook_url = webhook_url
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, set[str]] = {}

    def kick(self, model: str, heads: Iterable[str] = ()) -> asyncio.Task[None]:
        """Feed `model` soon, once for many kicks: a kick during a round adds one more round. The task never raises."""
        task = self._tasks.get(model)
        if task is not None and not task.done():
            self._again.setdefault(model, set()).update(heads)
            return task
        task = asyncio.get_running_loop().create_task(self._feed(model, set(heads)))
        self._tasks[model] = task
        return task

    def under_way(self) -> list[asyncio.Task[None]]:
        """The rounds that go on right now."""
        return [task for task in self._tasks.values() if not task.done()]

    async def _feed(self, model: str, heads: set[str]) -> None:
        try:
            await self._drain(model, sorted(heads))
            while model in self._again:
                await self._drain(model, sorted(self._again.pop(model)))
        except PlatformError as error:
            self._again.pop(model, None)
            log.warning("feeding stopped: %s", error, extra={"model": model})

    async def _drain(self, model: str, heads: Sequence[str]) -> None:
        endpoint = self._endpoints[model]
        window = self._cards[model].concurrency()
        for _ in range(ROUNDS):
            answer = await self._queue.claim(endpoint, window, heads)
            if answer.claims and not await self._submit(endpoint, answer.claims):
                return
            if answer.room <= 0 or not answer.heads:
                return
            heads = answer.heads

    async def _submit(self, endpoint: Endpoint, claims: Sequence[Claim]) -> bool:
        """POST every claim; False where the endpoint refused one (it rests then)."""
        answers = await asyncio.gather(
            *(self._post(endpoint, claim) for claim in claims), return_exceptions=True
        )
        submitted: list[Submitted] = []
        refused: list[tuple[Claim, EndpointUnavailable]] = []
        for claim, answer in zip(claims, answers, strict=True):
            if isinstance(answer, EndpointUnavailable):
                refused.append((claim, answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                submitted.append(Submitted(claim.ref, claim.attempt, answer))
        if submitted:
            await self._queue.record(endpoint, submitted, healthy=not refused)
        if refused:
            await self._give_back(endpoint, refused)
        return not refused

    async def _post(self, endpoint: Endpoint, claim: Claim) -> str:
        card = self._cards[endpoint.model]
        timeout_s = card.execution_timeout_s(claim.requests, card.concurrency())
        policy = JobPolicy(int(1000 * timeout_s), min(MAX_TTL_MS, claim.left_ms + TTL_SLACK_MS))
        webhook = self._webhook_url(claim.ref.batch)
        return await self._jobs.run(endpoint, shard_input(claim, endpoint), webhook, policy)

    async def _give_back(
        self, endpoint: Endpoint, refused: Sequence[tuple[Claim, EndpointUnavailable]]
    ) -> None:
        # A job that RunPod accepted all the same is refused at its start: its attempt is no longer the shard's.
        for claim, _ in refused:
            seen = claimed(claim.ref, endpoint, claim.attempt, claim.requests)
            await self._repairs.requeue(claim.ref, seen, delay_ms=0, blame=False, message="")
        asked_s = max((error.retry_after_s or 0 for _, error in refused), default=0)
        rest_s = await self._queue.rest(endpoint, asked_s)
        log.warning("endpoint rests for %.1f s: %s", rest_s, refused[0][1], extra={"endpoint": endpoint.id})
