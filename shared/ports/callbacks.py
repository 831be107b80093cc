"""Telling a caller that a batch ended: what is kept of it, and the way to its receiver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from shared.core.callbacks import Attempt, Noted
from shared.core.shards import BatchRecord


class CallbackStore(Protocol):
    """Both methods are idempotent and raise StateUnavailable where the store did not answer. What is due, and who sends
    it, a sweep says."""

    async def load(self, batch_id: str) -> BatchRecord | None:
        """The batch whose end is to be told; None where nothing is to be told any more, which is forgotten then."""

    async def note(self, batch_id: str, number: int, noted: Noted) -> None:
        """What came of attempt `number`. Changes nothing where it was noted before, or after a delivery. One that has
        to wait past its batch's deadline has failed."""


class CallbackSender(Protocol):
    async def send(self, url: str, headers: Mapping[str, str], body: str) -> Attempt:
        """POST an event, bounded in time. Never raises for the receiver or the network."""
