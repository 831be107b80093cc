"""What the token in a webhook's URL can do, by the engine's own ACL: append to the eight inboxes, and nothing else."""

import json
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
import pytest_asyncio
from http_calls import Http
from inbox_token import USER
from inbox_token import Upstash as Deployment

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from tests.conftest import UpstashAddress
from tests.contract.state import Store
from tests.local_cloud.services import make_webhook_token

OTHERS = [
    "inbox",
    "inbox:",
    "inbox:8",
    "inbox:00",
    "inbox:0 ",
    "inbox:*",
    "inbox:evil",
    "INBOX:0",
    "queue:mistral",
]
COMMANDS: list[list[str]] = [
    *(["RPUSH", name, "x"] for name in OTHERS),
    *(["LPUSH", "inbox:0", "x"], ["RPUSHX", "inbox:0", "x"], ["LSET", "inbox:0", "0", "x"]),
    *(["LRANGE", "inbox:0", "0", "-1"], ["LLEN", "inbox:0"], ["LPOP", "inbox:0"], ["LINDEX", "inbox:0", "0"]),
    *(["LMOVE", "inbox:0", "inbox:1", "LEFT", "RIGHT"], ["RPOPLPUSH", "inbox:0", "batches"]),
    *(["COPY", "inbox:0", "mine"], ["RENAME", "inbox:0", "mine"], ["DEL", "inbox:0"], ["UNLINK", "inbox:0"]),
    *(["EXPIRE", "inbox:0", "1"], ["PERSIST", "inbox:0"], ["DUMP", "inbox:0"], ["TYPE", "inbox:0"]),
    *(["GET", "idem:k"], ["SET", "inbox:0", "x"], ["APPEND", "inbox:0", "x"], ["HGETALL", "endpoints"]),
    *(["EVAL", "return 1", "0"], ["EVAL", "return redis.call('GET', 'x')", "1", "inbox:0"]),
    *(["EVALSHA", "0" * 40, "0"], ["SCRIPT", "LOAD", "return 1"], ["SCRIPT", "FLUSH"], ["FCALL", "f", "0"]),
    *(["SCAN", "0"], ["KEYS", "*"], ["RANDOMKEY"], ["DBSIZE"], ["SORT", "inbox:0", "STORE", "mine"]),
    *(["ACL", "WHOAMI"], ["ACL", "LIST"], ["ACL", "SETUSER", USER, "+@all"], ["ACL", "GENTOKEN", USER]),
    *(["FLUSHALL"], ["FLUSHDB"], ["CONFIG", "GET", "*"], ["CONFIG", "SET", "maxmemory", "1"], ["INFO"]),
    *(["PUBLISH", "inbox:0", "x"], ["XADD", "inbox:0", "*", "a", "b"], ["SHUTDOWN"], ["DEBUG", "SLEEP", "0"]),
]
# Ways to say more than one thing in a request, raw.
PATHS = [
    *(
        "rpush/inbox%3A8/x",
        "rpush/inbox:0%00/x",
        "rpush/inbox:0%0d%0aGET%20x/x",
        "rpush/inbox:0%2f..%2fbatches/x",
    ),
    *(
        "RPUSH%20batches/inbox:0/x",
        "rpush%00/batches/x",
        "/get/idem:k",
        "get/idem:k/%2e%2e/%2e%2e/rpush/inbox:0",
    ),
]


def is_refusal(answer: Mapping[str, str]) -> bool:
    """For want of a right, or because Upstash lets nobody send that command."""
    return answer["error"].startswith(("NOPERM ", "ERR Command is not available"))


class Caller:
    """Who holds nothing but a webhook's URL."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        self._token = token

    async def post(self, path: str, body: bytes = b"") -> httpx.Response:
        return await self._http.post(f"/{path}?_token={self._token}", content=body)

    async def send(self, path: str, commands: object) -> httpx.Response:
        return await self.post(path, json.dumps(commands).encode())

    async def close(self) -> None:
        await self._http.aclose()


async def by_deploy(address: UpstashAddress) -> str:
    return Deployment(address.token, lambda token: Http("Upstash", address.url, token)).new_token()


async def by_local_cloud(address: UpstashAddress) -> str:
    return await make_webhook_token(address.url, address.token)


@pytest_asyncio.fixture(params=[by_deploy, by_local_cloud], ids=["deploy", "local cloud"])
async def caller(
    request: pytest.FixtureRequest, upstash_server: UpstashAddress, redis: Upstash
) -> AsyncIterator[Caller]:
    caller = Caller(upstash_server.url, await request.param(upstash_server))
    yield caller
    await caller.close()
    await redis.execute("ACL", "DELUSER", USER)


async def test_it_may_append_to_each_of_the_eight_inboxes(caller: Caller, redis: Upstash) -> None:
    for inbox in keys.INBOXES:
        assert (await caller.post(f"rpush/{inbox}", b"{}")).json() == {"result": 1}
    assert set(await redis.execute("KEYS", "*")) == set(keys.INBOXES)


async def test_the_engine_itself_says_that_it_may_do_nothing_else(caller: Caller, redis: Upstash) -> None:
    told = await redis.execute("ACL", "GETUSER", USER)
    rights = dict(zip(told[::2], told[1::2], strict=True))
    assert rights["commands"] == "-@all +rpush"
    assert set(rights["keys"].split()) == {f"~{inbox}" for inbox in keys.INBOXES}
    assert (rights["channels"], rights["selectors"]) == ("", [])


async def test_whatever_else_it_asks_for_is_refused_and_changes_nothing(
    caller: Caller, redis: Upstash
) -> None:
    store = Store(redis)
    await store.create()
    await redis.execute("RPUSH", "inbox:0", "one")
    before = await store.dump()
    for command in COMMANDS:
        answer = await caller.send("", command)
        assert (answer.status_code, is_refusal(answer.json())) == (400, True), (command, answer.text)
    for path in PATHS:
        assert (await caller.post(path, b"x")).status_code in (400, 404), path
    assert is_refusal((await caller.send("multi-exec", [["RPUSH", "inbox:0", "x"]])).json())
    assert all(map(is_refusal, (await caller.send("pipeline", COMMANDS)).json()))
    assert await store.dump() == before


async def test_a_token_in_a_header_is_no_stronger(caller: Caller, upstash_server: UpstashAddress) -> None:
    header = {"Authorization": f"Bearer {caller._token}"}
    async with httpx.AsyncClient(base_url=upstash_server.url, headers=header) as bearer:
        answer = await bearer.post("/", json=["LLEN", "inbox:0"])
    assert "NOPERM" in answer.text
