"""The batch API as a RunPod handler: `python -u -m handlers.batch_api.handler`."""

from __future__ import annotations

from typing import Any

from handlers.drain import Drain
from handlers.entry import Job, read_settings, serve
from shared.config import Settings
from shared.flow.operations import Operations
from shared.wiring import build_service

# Operations wait for Redis and RunPod, not for the CPU, so one worker holds some tens of them at a time.
CONCURRENCY = 32


class Handler:
    """Connects at the first job, inside the SDK's event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._operations: Operations | None = None

    async def work(self, job: Job) -> dict[str, Any]:
        if self._operations is None:
            self._operations = build_service(self._settings).operations()
        return await self._operations.handle(job.get("input"), str(job["id"]))


def main() -> None:
    settings = read_settings()
    # Operations take moments: there is nothing to give back.
    serve(Handler(settings).work, CONCURRENCY, Drain(settings.drain_s, lambda: None))


if __name__ == "__main__":
    main()
