"""`create`: validate, route, shard, store the inputs, commit the batch in one script. Feeding follows.

Nothing is stored for a request that is refused. A create that is repeated under its idempotency key, by a retry or
after a lost reply, gives the same batch; the loser of a race removes its payloads. `retry_failed` goes the same way
from the routed requests on: what it runs again was validated, filled in and routed once. It goes part by part,
because what failed may be as large as the batch was.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shared.core import codec
from shared.core.cards import ModelCard
from shared.core.requests import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_TEMPERATURE,
    CreateInput,
    UploadInput,
    check_unique,
    parse,
)
from shared.core.routing import Router
from shared.core.sharding import Cut, PartPlan, Routed, cut_part
from shared.core.shards import BatchRecord
from shared.core.structured import schema_format
from shared.errors import Conflict, InvalidRequest, PlatformError, ServiceError, TooLarge
from shared.ports.payloads import PAYLOAD_SLACK_MS, Payloads, input_key, order_key
from shared.ports.state import Batches, Committed, NewBatch

log = logging.getLogger(__name__)

Value = TypeVar("Value")
# The model and the stored form of each request in turn.
Prepared = tuple[Sequence[ModelCard], Sequence[str]]

Wanted = TypeVar("Wanted", CreateInput, UploadInput)

WEIGHTS = {"low": 0.25, "normal": 1.0, "high": 4.0}


@dataclass(frozen=True)
class Limits:
    """What one batch may hold, how long it lives, and how long it may be uploaded, in milliseconds."""

    max_requests: int = 100_000
    max_batch_bytes: int = 256 * 1024 * 1024
    expires_in_ms: int = 24 * 3_600_000
    retain_ms: int = 24 * 3_600_000
    upload_ms: int = 24 * 3_600_000


@dataclass(frozen=True)
class Submission:
    """A committed batch, the models it needs and its member in their queues."""

    id: str
    models: Sequence[str] = ()
    head: str = ""


@dataclass(frozen=True)
class RoutedRequest:
    """A request as its worker will read it, as JSON text, and the model it goes to."""

    model: str
    text: str


class Submitter:
    """`stage_schemas`: what the answers of a stage must look like where a request asks for no format of its own."""

    def __init__(
        self,
        batches: Batches,
        payloads: Payloads,
        router: Router,
        limits: Limits,
        stage_schemas: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._batches = batches
        self._payloads = payloads
        self._router = router
        self._limits = limits
        self._stage_schemas = stage_schemas
        self._one_at_a_time = asyncio.Lock()

    async def submit(self, payload: Mapping[str, Any], job: str | None = None) -> Submission:
        """The batch made from a `create` input, or made before under the same key, or by the same RunPod job.

        Raises InvalidRequest, TooLarge, or Conflict where the key belongs to another body.
        """
        wanted, body_hash = await self.beside(
            lambda: (self.check(CreateInput, payload), hash_of(_body(payload)))
        )
        if wanted.idempotency_key:
            known = await self._batches.find_key(wanted.idempotency_key, body_hash)
            if known is not None:
                return Submission(same_batch(known))
        draft = self.draft(
            wanted.stage or "",
            wanted.priority,
            1000 * wanted.expires_in_s if wanted.expires_in_s else self._limits.expires_in_ms,
        )
        draft = replace(draft, idempotency_key=wanted.idempotency_key, body_hash=body_hash, job=job)
        return await self._make(draft, _one(lambda: self.accept(wanted, payload["requests"])))

    async def find_retry(self, first_id: str, idempotency_key: str | None) -> Submission | None:
        """The retry that an earlier call made, None where this is the first. Raises Conflict where the key belongs to
        another call."""
        if idempotency_key is None:
            known_id = await self._batches.find_retry(first_id)
            return Submission(known_id) if known_id else None
        known = await self._batches.find_key(idempotency_key, _retry_hash(first_id))
        return Submission(same_batch(known)) if known else None

    async def retry(
        self, first: BatchRecord, parts: AsyncIterator[list[RoutedRequest]], idempotency_key: str | None
    ) -> Submission:
        """A new batch of these requests of an ended one, which has as long as that had. Raises InvalidRequest where
        one of its models is not served any more."""
        draft = self.draft(first.stage, first.priority, first.expires_ms - first.created_ms)
        draft = replace(
            draft,
            idempotency_key=idempotency_key,
            body_hash=_retry_hash(first.id),
            retry_of=first.id,
        )

        def prepare(part: list[RoutedRequest]) -> Prepared:
            return [self._router.card(request.model) for request in part], [r.text for r in part]

        return await self._make(draft, (lambda part=part: prepare(part) async for part in parts))  # type: ignore[misc]

    def draft(self, stage: str, priority: str, expires_in_ms: int) -> NewBatch:
        return NewBatch(
            id=f"batch_{secrets.token_hex(12)}",
            stage=stage,
            priority=priority,
            weight=WEIGHTS[priority],
            nonce=secrets.token_hex(12),
            parts=(),
            expires_in_ms=expires_in_ms,
            retain_ms=self._limits.retain_ms,
        )

    async def beside(self, work: Callable[[], Value]) -> Value:
        """What `work` gives. A large body keeps a CPU busy for seconds: beside the event loop, so that other operations
        go on, and one at a time, so that many of them do not add up in memory."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(work)

    async def _make(self, draft: NewBatch, parts: AsyncIterator[Callable[[], Prepared]]) -> Submission:
        """Stores the payloads of what `parts` prepare, one after the other, and commits the batch."""
        ttl_ms = draft.expires_in_ms + draft.retain_ms + PAYLOAD_SLACK_MS
        plans: list[PartPlan] = []
        keys: list[str] = []
        try:
            async for prepare in parts:
                plan, items = await self.beside(
                    lambda prepare=prepare: _cut(draft.nonce, len(plans), *prepare())  # type: ignore[misc]
                )
                plans.append(plan)
                keys += items
                await self._payloads.put(items, ttl_ms)
        except ServiceError:
            if keys:
                await self.discard(keys)
            raise
        batch = replace(draft, parts=plans)
        committed = await self.commit(batch)
        if committed.id != draft.id:
            await self.discard(keys)
        return Submission(same_batch(committed), list(batch.requests_by_model), committed.head)

    async def commit(self, batch: NewBatch) -> Committed:
        """Makes a batch whose payloads are stored."""
        committed = await self._batches.commit(batch)
        log.info("batch %s with %d requests", committed.verdict, batch.total, extra={"batch": committed.id})
        return committed

    async def discard(self, keys: Sequence[str]) -> None:
        """Nothing will ever point at these payloads."""
        try:
            await self._payloads.delete(keys)
        except PlatformError as error:
            log.warning("payloads of no batch are left until they expire: %s", error)

    def check(self, model: type[Wanted], payload: Mapping[str, Any]) -> Wanted:
        """`payload` as `model`, within the limits, each of its custom_ids once. Raises InvalidRequest or TooLarge."""
        requests = payload.get("requests")
        if isinstance(requests, list) and len(requests) > self._limits.max_requests:
            raise TooLarge(f"requests: at most {self._limits.max_requests} in a batch", param="requests")
        wanted = parse(model, dict(payload), self._limits.max_batch_bytes)
        check_unique(wanted.requests)
        return wanted

    def accept(self, wanted: CreateInput | UploadInput, requests: Sequence[Mapping[str, Any]]) -> Prepared:
        """The model and the stored form of each request. Raises InvalidRequest or TooLarge."""
        stored = _stored_requests(requests, self._stage_schemas.get(wanted.stage or ""))
        cards = [
            self._router.route(wanted.stage, index, request) for index, request in enumerate(wanted.requests)
        ]
        if sum(map(len, stored)) > self._limits.max_batch_bytes:
            raise TooLarge(
                f"requests: at most {self._limits.max_batch_bytes} bytes in a batch", param="requests"
            )
        for index, (card, text) in enumerate(zip(cards, stored, strict=True)):
            if len(text) > card.shard_bytes:
                path = f"requests[{index}]"
                raise InvalidRequest(f"{path}: at most {card.shard_bytes} bytes in a request", param=path)
        return cards, stored


async def _one(value: Value) -> AsyncIterator[Value]:
    yield value


def same_batch(committed: Committed, field: str = "idempotency_key") -> str:
    """The id of a batch that was made before, by the same call. Raises Conflict where it was another one."""
    if committed.verdict == "mismatch":
        message = f"{field}: used before for {committed.id} with another body"
        raise Conflict(message, param=field)
    return committed.id


def _retry_hash(first_id: str) -> str:
    return hash_of({"operation": "retry_failed", "id": first_id})


def _body(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that makes the batch what it is (not the key itself)."""
    return {name: value for name, value in payload.items() if name != "idempotency_key"}


def hash_of(value: Any) -> str:
    """A digest of JSON, whatever the order of its names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _stored_requests(
    requests: Sequence[Mapping[str, Any]], stage_schema: Mapping[str, Any] | None
) -> list[str]:
    """Each request as its worker will read it: as sent, the defaults and its stage's schema filled in, as JSON text."""
    defaults: dict[str, Any] = {"max_tokens": DEFAULT_MAX_TOKENS, "temperature": DEFAULT_TEMPERATURE}
    if stage_schema is not None:
        defaults["response_format"] = schema_format(stage_schema)
    return [json.dumps({**request, "params": _filled(request["params"], defaults)}) for request in requests]


def _filled(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    filled = {**defaults, **params}
    if filled.get("response_format") is None and "response_format" in defaults:
        # An explicit null asks for no format of its own; {"type": "text"} does.
        filled["response_format"] = defaults["response_format"]
    return filled


def _cut(
    nonce: str, part: int, cards: Sequence[ModelCard], stored: Sequence[str]
) -> tuple[PartPlan, dict[str, bytes]]:
    cut = cut_stored(part, cards, stored)
    return cut.plan, part_payloads(nonce, part, cut, stored)


def cut_stored(part: int, cards: Sequence[ModelCard], stored: Sequence[str]) -> Cut:
    return cut_part([Routed(card, len(text)) for card, text in zip(cards, stored, strict=True)], part)


def part_payloads(nonce: str, part: int, cut: Cut, stored: Sequence[str]) -> dict[str, bytes]:
    """What is stored of a part, by key: each shard's input, and the order of its models."""
    items = {
        input_key(nonce, number): codec.encode_items([stored[index] for index in members])
        for number, members in cut.members.items()
    }
    if len(cut.plan.models) > 1:
        items[order_key(nonce, part)] = codec.encode(cut.order)
    return items
