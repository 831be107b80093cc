"""Waiting for something to happen to a key (a job's end, a new chunk, a stop signal), without polling."""

import asyncio


class Waiters:
    """Callers that wait for a key, all woken together."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    async def wait(self, key: str, timeout_s: float) -> None:
        """Returns when the key is woken or the time is over."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, _wake, future)
        self._waiting.setdefault(key, set()).add(future)
        try:
            await future
        finally:
            timer.cancel()
            futures = self._waiting.get(key)
            if futures is not None:
                futures.discard(future)
                if not futures:
                    del self._waiting[key]

    def wake(self, key: str) -> None:
        for future in self._waiting.get(key, ()):
            _wake(future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
