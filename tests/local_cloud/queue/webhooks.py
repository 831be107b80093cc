"""Sends completion webhooks as the platform does: exact body, no authentication, three tries, in the background."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence

import aiohttp
from yarl import URL

from tests.local_cloud.fault_table import FaultTable
from tests.local_cloud.queue.forgery import Forger, oversized
from tests.local_cloud.queue.job import WEBHOOK_STATES, Job, JsonObject, webhook_body

_HEADERS = {"Content-Type": "application/json", "User-Agent": "Go-http-client/2.0"}
_TIMEOUT_S = 10.0
_CONCURRENCY = 32


class WebhookSender:
    """Counts in `counts`: `sent` (answered 2xx), `failed` (no try was), `dropped` (by a fault)."""

    def __init__(self, faults: FaultTable, forger: Forger, delays_s: Sequence[float]) -> None:
        """`delays_s`: one entry per try, the pause before it."""
        self.counts = Counter(sent=0, failed=0, dropped=0)
        self._faults = faults
        self._forger = forger
        # Webhooks that a fault holds back: (URL, body).
        self._held: list[tuple[str, bytes]] = []
        self._delays_s = tuple(delays_s)
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def send(self, job: Job) -> None:
        """Starts sending; returns at once. Does nothing for a job without a webhook."""
        url = job.submission.webhook
        if url is None or job.state not in WEBHOOK_STATES:
            return
        if self._faults.fires("drop_webhook"):
            self.counts["dropped"] += 1
            return
        held = self._faults.fires("hold_webhook")
        for body in self._bodies(job):
            if held:
                self._held.append((url, body))
            else:
                task = asyncio.get_running_loop().create_task(self._deliver(url, body))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def release(self) -> int:
        """Sends what was held back, the last one first; the number of them."""
        held, self._held = self._held, []
        for url, body in reversed(held):
            await self._deliver(url, body)
        return len(held)

    def reset(self) -> None:
        self.counts.update({name: -count for name, count in self.counts.items()})

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _bodies(self, job: Job) -> Iterator[bytes]:
        """What is sent for one job: its webhook, unless a fault makes it something else, or more."""
        body = webhook_body(job)
        forged = self._forger.forged(body)
        if self._faults.fires("forge_webhook"):
            yield _encoded(forged)
        if self._faults.fires("oversize_webhook"):
            body = oversized(body)
        raw = b"" if self._faults.fires("empty_webhook") else _encoded(body)
        yield raw
        if self._faults.fires("double_webhook"):
            yield raw

    async def _deliver(self, url: str, body: bytes) -> None:
        for delay_s in self._delays_s:
            if delay_s:
                await asyncio.sleep(delay_s)
            if await self._post(url, body):
                self.counts["sent"] += 1
                return
        self.counts["failed"] += 1

    async def _post(self, url: str, body: bytes) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))
        async with self._slots:
            try:
                # encoded: the URL goes out byte for byte as the caller wrote it.
                async with self._session.post(URL(url, encoded=True), data=body, headers=_HEADERS) as reply:
                    await reply.read()
                    return 200 <= reply.status < 300
            except (aiohttp.ClientError, TimeoutError, ValueError):
                return False


def _encoded(body: JsonObject) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
