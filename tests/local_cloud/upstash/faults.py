"""The faults of Redis as a client meets them.

They befall requests with the admin token, which is the product's: a test that looks with it meets them too. The
webhooks' pushes have a token of their own and go on, and so does the control interface.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import web

from tests.local_cloud.fault_table import FaultTable
from tests.local_cloud.severed import cut, send_half
from tests.local_cloud.upstash.links import EngineLink
from tests.local_cloud.upstash.protocol import to_json
from tests.local_cloud.upstash.resp import Command, Reply, ReplyError

EFFECTS = {
    "redis_refused": "a request is answered 401 WRONGPASS, and not carried out",
    "redis_429": "a request is answered 429 as past the plan's quota, and not carried out",
    "redis_502": "a request is answered 502 with a page of HTML, and not carried out",
    "redis_timeout_before": "the connection is cut, and the request not carried out",
    "redis_timeout_after": "the request is carried out, and the connection cut without an answer",
    "redis_reset": "the request is carried out, and the connection reset in the middle of the answer",
    "redis_slow": "the request is carried out 1.5 s later, even if its client has left",
    "redis_oom": "the engine has no memory left while the request runs: it refuses writes and scripts, not reads",
    "redis_noscript": "EVALSHA is answered NOSCRIPT, although the script is loaded",
}
# All but the last befall a request as a whole; at most one of them does.
OF_A_REQUEST = tuple(name for name in EFFECTS if name != "redis_noscript")
SLOW_S = 1.5

NOSCRIPT = ReplyError("NOSCRIPT No matching script.")
_BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"
_PAST_QUOTA = (
    "ERR max requests limit exceeded. Limit: 500000, Usage: 500000. "
    "See https://upstash.com/docs/redis/troubleshooting/max_requests_limit for details"
)


class Link(Protocol):
    """A connection to the engine, as EngineLink is one."""

    def exchange(self, commands: Sequence[Command]) -> Awaitable[list[Reply]]: ...


class FullLink:
    """To an engine that has no memory left just then: what it refuses, and how, is its own doing."""

    def __init__(self, link: EngineLink) -> None:
        self._link = link

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        full, with_room = ((b"CONFIG", b"SET", b"maxmemory", limit) for limit in (b"1", b"0"))
        return (await self._link.exchange([full, *commands, with_room]))[1:-1]


async def befall(
    table: FaultTable,
    request: web.BaseRequest,
    link: EngineLink,
    run: Callable[[Link], Awaitable[web.Response]],
) -> web.StreamResponse:
    """Runs a request, or does to it what the first fault that fires does."""
    fault = next((name for name in OF_A_REQUEST if table.fires(name)), None)
    if (refused := _refusal(fault)) is not None:
        return refused
    if fault == "redis_timeout_before":
        return cut(request)
    if fault == "redis_slow":
        await asyncio.sleep(SLOW_S)
    done = await run(FullLink(link) if fault == "redis_oom" else link)
    if fault == "redis_timeout_after":
        return cut(request)
    if fault == "redis_reset":
        assert isinstance(done.body, bytes)
        return await send_half(request, done.status, done.headers, done.body, reset=True)
    return done


def answer(status: int, said: object) -> web.Response:
    return web.Response(status=status, body=to_json(said), content_type="application/json")


def wrong_token() -> web.Response:
    return answer(401, {"error": "WRONGPASS invalid or missing auth token"})


def _refusal(fault: str | None) -> web.Response | None:
    match fault:
        case "redis_refused":
            return wrong_token()
        case "redis_429":
            return answer(429, {"error": _PAST_QUOTA})
        case "redis_502":
            return web.Response(status=502, text=_BAD_GATEWAY, content_type="text/html")
    return None
