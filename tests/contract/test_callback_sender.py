"""The sender against real sockets: it connects to the address that it checked, and believes nothing of the answer."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import certifi
import pytest
import pytest_asyncio
from aiohttp import web

from shared.adapters.callback_sender import CallbackSender
from shared.core.callbacks import Attempt
from tests.contract.receiver import Receiver, certificate, receiver

HEADERS = {"webhook-id": "evt_1", "webhook-signature": "v1,x"}
BODY = '{"type": "batch.ended"}'
NOT_PUBLIC = Attempt("its address is not public", final=True)
LookUps = list[tuple[Any, ...]]


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Receiver]:
    async with receiver() as here:
        yield here


@pytest_asyncio.fixture
async def private() -> AsyncIterator[CallbackSender]:
    sender = CallbackSender(allow_private=True)
    yield sender
    await sender.close()


@pytest_asyncio.fixture
async def public() -> AsyncIterator[CallbackSender]:
    sender = CallbackSender(allow_private=False)
    yield sender
    await sender.close()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LookUps]:
    """Names have these addresses: those of the first look-up, of the second, ..."""

    def to(*answers: Sequence[str]) -> LookUps:
        asked: LookUps = []

        def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            addresses = answers[min(len(asked), len(answers) - 1)]
            asked.append((host, port))
            return [
                (socket.AF_INET6 if ":" in address else socket.AF_INET, 1, 6, "", (address, port))
                for address in addresses
            ]

        monkeypatch.setattr("shared.adapters.callback_sender.socket.getaddrinfo", getaddrinfo)
        return asked

    return to


async def test_an_event_arrives_with_its_headers_path_and_host(
    here: Receiver, private: CallbackSender
) -> None:
    url = f"http://localhost:{here.port}/ended?token=x%20y"
    assert await private.send(url, HEADERS, BODY) == Attempt()
    [(path, headers, body)] = here.received
    assert (path, body) == ("/ended?token=x%20y", BODY)
    assert headers.items() >= HEADERS.items()
    assert headers["Host"] == f"localhost:{here.port}"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1"])
async def test_whatever_leads_to_this_machine_is_refused(
    here: Receiver, public: CallbackSender, host: str
) -> None:
    assert await public.send(f"http://{host}:{here.port}/", HEADERS, BODY) == NOT_PUBLIC
    assert here.received == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["2606:4700::1111", "::1"],
        ["::ffff:127.0.0.1"],
        [],
    ],
    ids=["the second", "the first", "one of v6", "mapped", "none"],
)
async def test_a_name_is_refused_if_one_of_its_addresses_is_not_public(
    public: CallbackSender, resolve: Callable[..., LookUps], addresses: list[str]
) -> None:
    asked = resolve(addresses)
    attempt = await public.send("https://hooks.example.com:8443/", HEADERS, BODY)
    assert attempt == (NOT_PUBLIC if addresses else Attempt("its name has no address"))
    assert asked == [("hooks.example.com", 8443)]


@pytest.mark.parametrize("name", ["xn--strae-oqa.de", "xn--ls8h.la"])
async def test_a_name_in_punycode_is_asked_for_as_it_stands(
    here: Receiver, private: CallbackSender, resolve: Callable[..., LookUps], name: str
) -> None:
    # Read as text and written again it would be another name, such as strasse.de, or none.
    asked = resolve(["127.0.0.1"])
    assert await private.send(f"http://{name}:{here.port}/", HEADERS, BODY) == Attempt()
    assert asked == [(name, here.port)]
    [(_, headers, _)] = here.received
    assert headers["Host"] == f"{name}:{here.port}"


async def test_the_connection_goes_to_the_address_that_was_checked_and_the_name_is_asked_once(
    here: Receiver, private: CallbackSender, resolve: Callable[..., LookUps]
) -> None:
    # A second look-up, by whoever connects, would lead elsewhere.
    asked = resolve(["127.0.0.1"], ["127.0.0.2"])
    assert await private.send(f"http://rebinding.example:{here.port}/", HEADERS, BODY) == Attempt()
    assert asked == [("rebinding.example", here.port)]
    assert len(here.received) == 1


async def test_another_address_of_a_name_is_tried_where_one_does_not_connect(
    here: Receiver, private: CallbackSender, resolve: Callable[..., LookUps]
) -> None:
    resolve(["127.0.0.9", "127.0.0.1"])
    assert await private.send(f"http://hooks.example:{here.port}/", HEADERS, BODY) == Attempt()


@pytest.mark.parametrize("name", ["hooks.example", "127.0.0.1"])
async def test_tls_asks_for_the_name_and_believes_no_other(
    resolve: Callable[..., LookUps], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    path = certificate(tmp_path, name)
    monkeypatch.setattr(certifi, "where", lambda: str(path))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    resolve(["127.0.0.1"])
    sender = CallbackSender(allow_private=True)
    async with receiver(tls) as there:
        assert await sender.send(f"https://{name}:{there.port}/x", HEADERS, BODY) == Attempt()
        refused = await sender.send(f"https://other.example:{there.port}/x", HEADERS, BODY)
        assert refused == Attempt("no connection (ConnectError)")
    assert len(there.received) == 1
    await sender.close()


async def test_a_receiver_whose_certificate_nobody_signed_is_not_told(
    private: CallbackSender, tmp_path: Path
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate(tmp_path, "localhost"))
    async with receiver(tls) as there:
        attempt = await private.send(f"https://localhost:{there.port}/", HEADERS, BODY)
    assert attempt == Attempt("no connection (ConnectError)")
    assert there.received == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(here: Receiver, private: CallbackSender, status: int) -> None:
    here.answer = web.Response(status=status, headers={"location": f"http://127.0.0.1:{here.port}/inside"})
    attempt = await private.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY)
    assert attempt == Attempt(f"the receiver answered {status}")
    assert len(here.received) == 1


async def test_no_proxy_of_the_environment_is_used(here: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        sender = CallbackSender(allow_private=True)
        assert await sender.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY) == Attempt()
        await sender.close()
        assert proxy.received == []


async def test_no_cookie_of_one_receiver_goes_to_another(here: Receiver, private: CallbackSender) -> None:
    here.answer = web.Response(headers={"set-cookie": "session=x"})
    for _ in range(2):
        assert await private.send(f"http://127.0.0.1:{here.port}/", HEADERS, BODY) == Attempt()
        here.answer = None
    assert "Cookie" not in here.received[1][1]


async def test_an_endless_answer_is_not_read() -> None:
    sent_bytes = 0
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent_bytes += 65536
        except ConnectionError:
            closed.set()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    sender = CallbackSender(allow_private=True)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    assert await sender.send(url, HEADERS, BODY) == Attempt()
    await asyncio.wait_for(closed.wait(), 30)
    # What the sockets between them hold.
    assert sent_bytes < 64 * 1024 * 1024
    server.close()
    await sender.close()


async def test_a_receiver_that_says_nothing_is_given_up(
    private: CallbackSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.adapters.callback_sender.TIMEOUT_S", 0.2)
    released = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    assert await private.send(url, HEADERS, BODY) == Attempt("no answer within 0.2 s")
    released.set()
    server.close()


async def test_a_receiver_that_is_not_there_or_talks_nonsense_is_a_fault_to_try_again(
    private: CallbackSender, resolve: Callable[..., LookUps]
) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    attempt = await private.send(f"http://127.0.0.1:{port}/", HEADERS, BODY)
    assert attempt.fault.startswith("no answer (")
    assert not attempt.final
    server.close()
    await server.wait_closed()
    resolve(["127.0.0.1"])
    attempt = await private.send(f"http://gone.example:{port}/", HEADERS, BODY)
    assert attempt == Attempt("no connection (ConnectError)")


@pytest.mark.parametrize(
    "host",
    ["name.invalid", "x" * 64 + ".example", "xn--a.example", "a..b"],
    ids=["unknown", "long label", "bad punycode", "empty label"],
)
async def test_a_name_that_can_not_be_resolved_is_a_fault_to_try_again(
    public: CallbackSender, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        host.encode("idna")
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("shared.adapters.callback_sender.socket.getaddrinfo", getaddrinfo)
    attempt = await public.send(f"https://{host}/", HEADERS, BODY)
    assert attempt.fault.startswith(("its name has no address", "no answer (InvalidURL)"))
    assert not attempt.final
