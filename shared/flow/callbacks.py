"""Callbacks: tells callers that their batches ended. Run by whoever's sweep found one due.

At least once: an attempt of which nobody heard, because its process died, is made again when the sweep's lease on it
ends, with the same id.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from time import time

from shared.core.callbacks import after_attempt, event_body, event_id, signed_headers
from shared.errors import PlatformError
from shared.ports.callbacks import CallbackSender, CallbackStore

log = logging.getLogger(__name__)

# So that slow receivers cost one process no more than this.
DELIVERIES_AT_ONCE = 32


class Callbacks:
    """`keys` sign. `clock` gives seconds since 1970: the receiver compares them with its own clock."""

    def __init__(
        self,
        store: CallbackStore,
        sender: CallbackSender,
        keys: Sequence[bytes],
        clock: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._sender = sender
        self._keys = keys
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()

    def room(self) -> int:
        """How many more this process can deliver now; none where it can't sign."""
        return max(0, DELIVERIES_AT_ONCE - len(self._under_way)) if self._keys else 0

    def kick(self, batch_ids: Iterable[str]) -> None:
        """Deliver the callbacks of these batches, beside whatever else goes on."""
        for batch_id in batch_ids:
            task = asyncio.get_running_loop().create_task(self.deliver(batch_id))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def under_way(self) -> set[asyncio.Task[None]]:
        return set(self._under_way)

    async def deliver(self, batch_id: str) -> None:
        """One attempt. Never raises for the platform: whatever is not noted is due again."""
        try:
            await self._deliver(batch_id)
        except PlatformError as error:
            log.warning("callback postponed: %s", error, extra={"batch": batch_id})

    async def _deliver(self, batch_id: str) -> None:
        batch = await self._store.load(batch_id)
        if batch is None or batch.callback is None:
            return
        number = batch.callback.attempts + 1
        body = event_body(batch)
        headers = signed_headers(self._keys, event_id(batch.id), int(self._clock()), body)
        attempt = await self._sender.send(batch.callback.url, headers, body)
        noted = after_attempt(number, attempt, random.random)
        log.info("callback %s: attempt %d %s", noted.state, number, attempt.fault, extra={"batch": batch_id})
        await self._store.note(batch_id, number, noted)
