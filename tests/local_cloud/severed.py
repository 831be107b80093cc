"""Connections that end before their reply did: cut without a word, or reset in the middle of a body."""

import socket
import struct
from collections.abc import Mapping

from aiohttp import web

_NO_LINGER = struct.pack("ii", 1, 0)


def cut(request: web.BaseRequest) -> web.StreamResponse:
    """Closes the connection without an answer. What is returned goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def send_half(
    request: web.BaseRequest, status: int, headers: Mapping[str, str], body: bytes, *, reset: bool
) -> web.StreamResponse:
    """Announces the whole body, sends half of it and closes the connection: by TCP's RST where `reset`."""
    answer = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(body))})
    await answer.prepare(request)
    await answer.write(body[: len(body) // 2])
    if request.transport is not None and reset:
        # Closed without lingering, a socket sends RST; `abort` closes it at once.
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        request.transport.abort()
    elif request.transport is not None:
        request.transport.close()
    return answer
