"""One HTTP call to the queue, as its operations see it."""

import json
from dataclasses import dataclass

from aiohttp import web

from tests.local_cloud.fault_table import FaultTable
from tests.local_cloud.queue.live import LiveEndpoint


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Durations in seconds unless named otherwise."""

    api_key: str
    take_hold_s: float = 8.0
    stop_hold_s: float = 8.0
    stream_hold_s: float = 10.0
    openai_hold_s: float = 100.0
    min_execution_timeout_ms: int = 5_000
    rate_limited: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """`path` is what follows the operation's name: ids, or an OpenAI path."""

    request: web.Request
    endpoint: LiveEndpoint
    path: tuple[str, ...]
    settings: QueueSettings
    faults: FaultTable


def too_many_requests() -> web.Response:
    return reply({"error": "too many requests"}, status=429, headers={"Retry-After": "1"})


def reply(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    raw = json.dumps(body, separators=(",", ":")).encode("ascii")
    return web.Response(body=raw, status=status, content_type="application/json", headers=headers)
