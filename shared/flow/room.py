"""Who is in the engine: many in company, or a suspect alone. First come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """Whoever waits to be alone keeps later ones waiting too, so its turn comes when those inside have left."""

    def __init__(self) -> None:
        self._inside = 0
        self._is_taken = False
        self._waiting: deque[tuple[bool, asyncio.Future[None]]] = deque()

    async def enter(self, *, alone: bool) -> None:
        """Wait for a place; `leave` it. Cancelled while it waits, it has none."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((alone, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
                self._admit()
            else:
                # Let in at the very moment.
                self.leave()
            raise

    def leave(self) -> None:
        self._inside -= 1
        self._is_taken = False
        self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._is_taken:
            alone, turn = self._waiting[0]
            if turn.cancelled():
                # It does not know yet, and takes itself out when it does.
                self._waiting.popleft()
                continue
            if alone and self._inside:
                return
            self._waiting.popleft()
            self._inside += 1
            self._is_taken = alone
            turn.set_result(None)
