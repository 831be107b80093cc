"""Engine and server together, as one context for tests and for the process entry."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tests.local_cloud.upstash.engine import running_engine
from tests.local_cloud.upstash.links import EngineLinks
from tests.local_cloud.upstash.server import UpstashServer

_SHUTDOWN_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Upstash:
    """A running stand-in: `token` may do everything."""

    url: str
    token: str
    engine_pid: int


@asynccontextmanager
async def running_upstash(engine_binary: Path, seed: str = "0") -> AsyncIterator[Upstash]:
    """Serves the REST protocol on a free port of 127.0.0.1 until the context ends; nothing is kept.

    `seed` is that of its faults.
    """
    token = secrets.token_urlsafe(32)
    with running_engine(engine_binary) as engine:
        links = EngineLinks(engine.socket_path, token)
        runner = web.ServerRunner(
            UpstashServer(links, token, seed).http_server(), shutdown_timeout=_SHUTDOWN_TIMEOUT_S
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            yield Upstash(f"http://{host}:{port}", token, engine.pid)
        finally:
            await runner.cleanup()
            links.close()
