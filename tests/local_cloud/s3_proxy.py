"""In front of the S3 server: passes everything through as it was signed, or does to a request what a fault does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tests.local_cloud import s3_faults
from tests.local_cloud.fault_table import FaultTable
from tests.local_cloud.serving import LocalServer
from tests.local_cloud.severed import cut, send_half

FAULTS_PATH = "/_control/faults"
_CHUNK_BYTES = 64 * 1024
# Of one connection, not of the message; `Expect` was answered by this server.
_OF_A_CONNECTION = (hdrs.CONNECTION, hdrs.KEEP_ALIVE, hdrs.TRANSFER_ENCODING, hdrs.EXPECT)
# aiohttp would add these by itself.
_NOT_ADDED = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT)


class S3Proxy:
    """`checks_signatures`: whether the server behind refuses an old one by itself."""

    def __init__(self, target: str, table: FaultTable, *, checks_signatures: bool) -> None:
        self._target = target
        self._table = table
        self._checks_signatures = checks_signatures
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        server = LocalServer(app)
        # Each request on a connection of its own: one that the server has closed meanwhile would be a fault of ours.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=_NOT_ADDED
        ) as self._session:
            yield await server.start()
            await server.stop()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = next((name for name in s3_faults.EFFECTS if self._fires(name, request)), None)
        headers = _of_the_message(request.headers)
        if fault == "s3_expired" and self._checks_signatures:
            headers["X-Amz-Date"] = s3_faults.aged()
        elif fault is not None and (refused := s3_faults.refusal(fault)) is not None:
            async for _ in request.content.iter_any():
                pass
            return refused
        assert self._session is not None
        async with self._session.request(
            request.method,
            URL(self._target + request.raw_path, encoded=True),
            headers=headers,
            data=request.content if request.can_read_body else None,
            # A body that the server refuses unread is not sent: in the middle of it, the refusal would be lost.
            expect100=hdrs.EXPECT in request.headers,
            allow_redirects=False,
        ) as answer:
            if fault == "s3_timeout_after_write":
                await answer.read()
                return cut(request)
            if fault == "s3_truncated":
                kept = _of_the_message(answer.headers)
                return await send_half(request, answer.status, kept, await answer.read(), reset=False)
            return await _passed_on(request, answer)

    def _fires(self, name: str, request: web.Request) -> bool:
        return s3_faults.may_befall(name, request.method, request.path) and self._table.fires(name)


class FaultControl:
    """`GET` and `POST /_control/faults` beside a server whose own address belongs to its protocol."""

    def __init__(self, table: FaultTable) -> None:
        self._table = table

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.add_routes([method(FAULTS_PATH, self._handle) for method in (web.get, web.post)])
        server = LocalServer(app)
        yield await server.start()
        await server.stop()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        status, said = self._table.control(request.method, await request.read())
        return web.json_response(said, status=status)


async def _passed_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    passed = web.StreamResponse(status=answer.status, headers=_of_the_message(answer.headers))
    await passed.prepare(request)
    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
        await passed.write(chunk)
    await passed.write_eof()
    return passed


def _of_the_message(headers: "CIMultiDictProxy[str]") -> "CIMultiDict[str]":
    kept = CIMultiDict(headers)
    for name in _OF_A_CONNECTION:
        kept.popall(name, None)
    return kept
