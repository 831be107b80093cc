"""Connections to the engine: one per token, logged in as the token's user, shared by all its requests.

Commands of concurrent requests are written one behind the other and answered in that order. One request's
commands are written at once, so that a transaction's MULTI .. EXEC stays together. This needs commands that
neither block nor change the connection; the translation refuses the others.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tests.local_cloud.upstash.acl import user_of_token
from tests.local_cloud.upstash.limits import refuse_oversized
from tests.local_cloud.upstash.resp import Command, Reply, ReplyError, ReplyParser, encode


class EngineLost(ConnectionError):
    """The engine closed the connection while commands were under way: nobody knows whether they ran."""


class EngineLink(asyncio.Protocol):
    """One connection to the engine."""

    def __init__(self) -> None:
        self._parser = ReplyParser()
        self._waiting: deque[tuple[asyncio.Future[list[Reply]], int, list[Reply]]] = deque()
        self._transport: asyncio.Transport | None = None
        self._is_retired = False

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def exchange(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply]]:
        """Sends the commands (at least one) and gives their replies in order.

        Raises EngineLost.
        """
        if self._transport is None or self._transport.is_closing():
            raise EngineLost("the engine is not connected")
        replies: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._waiting.append((replies, len(commands), []))
        self._transport.write(encode(commands))
        return replies

    def retire(self) -> None:
        """Closes the connection as soon as everything under way is answered."""
        self._is_retired = True
        if self._transport is not None and not self._waiting:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for reply, size_bytes in self._parser.feed(data):
            future, count, replies = self._waiting[0]
            replies.append(refuse_oversized(reply, size_bytes))
            if len(replies) == count:
                self._waiting.popleft()
                if not future.done():  # the HTTP client may have gone away meanwhile
                    future.set_result(replies)
        if self._is_retired:
            self.retire()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        while self._waiting:
            future, _, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(EngineLost("the engine closed the connection"))


class EngineLinks:
    """The open links by token. The admin token stands for the engine's default user."""

    def __init__(self, socket_path: Path, admin_token: str) -> None:
        self._socket_path = socket_path
        self._admin_token = admin_token
        self._links: dict[str, EngineLink] = {}
        self._opening = asyncio.Lock()

    async def link_for(self, token: str) -> EngineLink | None:
        """The link of this token's user, or None if the engine does not take the token."""
        if (link := self._links.get(token)) is not None and link.is_open:
            return link
        async with self._opening:
            if (link := self._links.get(token)) is not None and link.is_open:
                return link
            opened = await self._open(token)
            if opened is not None:
                self._links[token] = opened
            return opened

    def forget_user(self, user: str) -> None:
        """Makes the next request of each of this user's tokens log in again.

        The engine keeps a connection whose password was changed; over REST every request authenticates anew.
        """
        for token in [token for token in self._links if user_of_token(token) == user]:
            self._links.pop(token).retire()

    def close(self) -> None:
        for link in self._links.values():
            link.retire()
        self._links.clear()

    async def _open(self, token: str) -> EngineLink | None:
        user = None if token == self._admin_token else user_of_token(token)
        if user is None and token != self._admin_token:
            return None
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(EngineLink, str(self._socket_path))
        if user is not None:
            login = (b"AUTH", user.encode(), token.encode())
            if isinstance((await link.exchange([login]))[0], ReplyError):
                link.retire()
                return None
        return link
