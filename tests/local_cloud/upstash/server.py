"""The HTTP server: authenticates a request, runs its commands as the token's user, answers in JSON.

`/_control/...` is not Upstash's: `stats` and `stats/reset` tell a test which commands were run, `faults` switches
faults on.
"""

import asyncio
import hmac
from collections.abc import Awaitable

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from tests.local_cloud.fault_table import FaultTable
from tests.local_cloud.upstash import protocol
from tests.local_cloud.upstash.faults import EFFECTS, NOSCRIPT, Link, answer, befall, wrong_token
from tests.local_cloud.upstash.limits import MAX_REQUEST_BYTES, oversized
from tests.local_cloud.upstash.links import EngineLinks, EngineLost
from tests.local_cloud.upstash.resp import Command, Reply, ReplyError
from tests.local_cloud.upstash.translation import Translated, Translator

_METHODS = ("POST", "GET", "PUT", "HEAD")
_MAX_TARGET_BYTES = 64 * 1024


class UpstashServer:
    """Answers every request of the REST protocol."""

    def __init__(self, links: EngineLinks, admin_token: str, seed: str) -> None:
        self._links = links
        self._admin_token = admin_token
        self._faults = FaultTable(EFFECTS, seed)
        self._translator = Translator(links.forget_user)

    def http_server(self) -> web.Server:
        """To be called in a running loop. Without aiohttp's router and log: they cost as much as the work."""
        return web.Server(
            self._handle,
            request_factory=_bounded_request,
            access_log=None,
            max_line_size=_MAX_TARGET_BYTES,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in _METHODS:
            return answer(405, {"error": "ERR method not allowed"})
        path, query = protocol.split_target(request.raw_path)
        token = _token_of(request, query)
        try:
            link = await self._links.link_for(token)
            if link is None:
                return wrong_token()
            body = b"" if request.method in ("GET", "HEAD") else await _read_body(request)
            if path.startswith(b"/_control/"):
                return self._control(request.method, path, token, body)
            is_base64 = request.headers.get("Upstash-Encoding") == "base64"

            def run(used: Link) -> Awaitable[web.Response]:
                return self._run(used, path, query, body, is_base64)

            return await (befall(self._faults, request, link, run) if self._is_admin(token) else run(link))
        except protocol.MalformedRequest as error:
            return answer(400, {"error": str(error)})
        except (EngineLost, OSError) as error:
            return answer(500, {"error": f"ERR {error}"})

    async def _run(
        self, link: Link, path: bytes, query: list[tuple[bytes, bytes]], body: bytes, is_base64: bool
    ) -> web.Response:
        if path == b"/pipeline":
            replies = await self._pipeline(link, protocol.commands_of_body(body, "pipeline"))
            return answer(200, [protocol.result_of(reply, is_base64) for reply in replies])
        if path == b"/multi-exec":
            outcome = await self._transaction(link, protocol.commands_of_body(body, "transaction"))
            if isinstance(outcome, ReplyError):
                return answer(400, {"error": outcome.text})
            return answer(200, [protocol.result_of(reply, is_base64) for reply in outcome])
        is_in_body = path == b"/" and bool(body)
        command = (
            protocol.command_of_body(body) if is_in_body else protocol.command_of_path(path, query, body)
        )
        [reply] = await self._pipeline(link, [command])
        return answer(400 if isinstance(reply, ReplyError) else 200, protocol.result_of(reply, is_base64))

    async def _pipeline(self, link: Link, commands: list[Command]) -> list[Reply]:
        """Each command's reply; a refused one is answered here and does not stop the others."""
        translated = [self._translate(command) for command in commands]
        sent = [item.command for item in translated if isinstance(item, Translated)]
        replies = iter(await link.exchange(sent) if sent else ())
        return [item if isinstance(item, ReplyError) else item.finish(next(replies)) for item in translated]

    async def _transaction(self, link: Link, commands: list[Command]) -> list[Reply] | ReplyError:
        """All replies, or the one error for which nothing was run."""
        translated: list[Translated] = []
        for command in commands:
            item = self._translate(command)
            if isinstance(item, ReplyError):
                return item
            translated.append(item)
        # A user without MULTI would otherwise run the commands outside any transaction.
        probe = (await link.exchange([(b"MULTI",), (b"DISCARD",)]))[0]
        if isinstance(probe, ReplyError):
            return probe
        queued = [item.command for item in translated]
        executed = (await link.exchange([(b"MULTI",), *queued, (b"EXEC",)]))[-1]
        if isinstance(executed, list):
            return [item.finish(reply) for item, reply in zip(translated, executed, strict=True)]
        return executed if isinstance(executed, ReplyError) else ReplyError("EXECABORT Transaction discarded")

    def _translate(self, command: Command) -> Translated | ReplyError:
        if command and command[0].upper() == b"EVALSHA" and self._faults.fires("redis_noscript"):
            return NOSCRIPT
        return self._translator.translate(command)

    def _is_admin(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._admin_token.encode())

    def _control(self, method: str, path: bytes, token: str, body: bytes) -> web.Response:
        if not self._is_admin(token):
            return answer(401, {"error": "the control interface needs the admin token"})
        commands, scripts = self._translator.command_counts, self._translator.script_counts
        if (method, path) == ("GET", b"/_control/stats"):
            return answer(200, {"commands": commands, "scripts": scripts, "total": commands.total()})
        if (method, path) == ("POST", b"/_control/stats/reset"):
            commands.clear()
            scripts.clear()
            return answer(200, {})
        if path == b"/_control/faults" and method in ("GET", "POST"):
            return answer(*self._faults.control(method, body))
        return answer(404, {"error": "no such control"})


def _token_of(request: web.BaseRequest, query: list[tuple[bytes, bytes]]) -> str:
    """The bearer token, else the query's `_token`, else an empty text."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return next((value.decode("utf-8", "replace") for name, value in query if name == b"_token"), "")


async def _read_body(request: web.BaseRequest) -> bytes:
    size_bytes = request.content_length or 0
    if size_bytes > MAX_REQUEST_BYTES:
        raise protocol.MalformedRequest(oversized(size_bytes).text)
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise protocol.MalformedRequest(oversized(MAX_REQUEST_BYTES + 1).text) from None


def _bounded_request(
    message: RawRequestMessage,
    payload: StreamReader,
    handler: RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    # aiohttp refuses a body of exactly its limit.
    limit_bytes = MAX_REQUEST_BYTES + 1
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, handler, writer, task, loop, client_max_size=limit_bytes)
