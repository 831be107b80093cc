"""The way to a caller's receiver: one POST to an address that was checked, and to no other.

The URL is a caller's, so everything about it is hostile: its name may lead into our network, another time elsewhere,
and its answer may be a redirect or endless. The name is resolved here, every address is checked, and the connection
goes to one of these; TLS still asks for the name. The bare transport knows no redirects, proxies or cookies.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

from shared.core.addresses import is_public
from shared.core.callbacks import Attempt, judge

TIMEOUT_S = 10.0
TIMEOUTS = httpx.Timeout(TIMEOUT_S, connect=4.0)
ADDRESSES_TRIED = 3
NAMES_AT_ONCE = 4
USER_AGENT = "llm-batch"


class CallbackSender:
    """One per process. Nothing here retries but the other addresses of a name."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        # A connection that was kept could serve another name at the same address.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(trust_env=False, limits=limits)
        # Of its own: names that take long must keep nothing else from a thread.
        self._threads = ThreadPoolExecutor(NAMES_AT_ONCE)

    async def send(self, url: str, headers: Mapping[str, str], body: str) -> Attempt:
        try:
            return await asyncio.wait_for(self._send(httpx.URL(url), headers, body), TIMEOUT_S)
        except asyncio.TimeoutError:
            return Attempt(f"no answer within {TIMEOUT_S:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Attempt(f"no answer ({type(error).__name__})")

    async def close(self) -> None:
        await self._transport.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _send(self, url: httpx.URL, headers: Mapping[str, str], body: str) -> Attempt:
        try:
            addresses = await self._resolve(url)
        except (OSError, UnicodeError):
            return Attempt("its name has no address")
        if not self._allow_private and not all(map(is_public, addresses)):
            return Attempt("its address is not public", final=True)
        fault = Attempt("its name has no address")
        for address in addresses[:ADDRESSES_TRIED]:
            try:
                return await self._post(url, address, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                fault = Attempt(f"no connection ({type(error).__name__})")
        return fault

    async def _resolve(self, url: httpx.URL) -> list[str]:
        """The addresses of a URL's host, in the system's order."""
        port = url.port or (443 if url.scheme == "https" else 80)
        look_up = partial(socket.getaddrinfo, _name(url), port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def _post(self, url: httpx.URL, address: str, headers: Mapping[str, str], body: str) -> Attempt:
        request = httpx.Request(
            "POST",
            url.copy_with(host=address),
            content=body,
            headers={
                **headers,
                "host": url.netloc.decode("ascii"),
                "content-type": "application/json",
                "user-agent": USER_AGENT,
            },
            extensions={"sni_hostname": _name(url), "timeout": TIMEOUTS.as_dict()},
        )
        answer = await self._transport.handle_async_request(request)
        # Its body says nothing that matters, and is not read.
        await answer.aclose()
        return judge(answer.status_code)


def _name(url: httpx.URL) -> str:
    """The host as it stands in the URL: `host` is decoded, and Python would encode that to another name."""
    return url.raw_host.decode("ascii")
