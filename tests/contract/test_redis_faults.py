"""Each fault of the local Redis, at the product's client: what was applied, and what the client makes of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from shared.adapters import upstash
from shared.adapters.upstash import ATTEMPTS, Upstash
from shared.errors import StateUnavailable
from tests.conftest import UpstashAddress
from tests.flow.cloud import eventually
from tests.local_cloud.upstash import faults

# A script, as the product runs them.
REST = ("rest", ["rest:e", "failures:e"], {"retry_after_ms": 5000, "random": 0.0, "cap_ms": 1000})
PASSING = ["redis_502", "redis_timeout_before", "redis_timeout_after", "redis_reset", "redis_slow"]
REFUSALS = ["redis_refused", "redis_429"]


class Control:
    """The control interface of the local Redis."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def set(self, **values: Any) -> dict[str, Any]:
        answer = await self._http.post("/_control/faults", json=values)
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def fired(self, name: str) -> int:
        return int((await self._http.get("/_control/faults")).json()[name]["fired"])


@pytest_asyncio.fixture
async def http(upstash_server: UpstashAddress) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {upstash_server.token}"}
    async with httpx.AsyncClient(base_url=upstash_server.url, headers=headers, timeout=10) as client:
        yield client


@pytest_asyncio.fixture
async def control(
    http: httpx.AsyncClient, redis: Upstash, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Control]:
    """On an empty database that knows the script."""
    monkeypatch.setattr(upstash, "RETRY_PAUSE_S", 0.0)
    await redis.run(*REST)
    await redis.execute("FLUSHALL")
    yield Control(http)
    await Control(http).set(**dict.fromkeys(faults.EFFECTS, 0))


CALLS: dict[str, Callable[[Upstash], Awaitable[Any]]] = {
    "command": lambda redis: redis.execute("SET", "a", "1"),
    "pipeline": lambda redis: redis.pipeline([["SET", "a", "1"], ["GET", "a"]]),
    "script": lambda redis: redis.run(*REST),
}
ANSWERS = {"command": True, "pipeline": [True, "1"], "script": 5000}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", PASSING)
async def test_a_passing_fault_is_not_felt(redis: Upstash, control: Control, fault: str, call: str) -> None:
    fired = await control.fired(fault)
    await control.set(**{fault: {"times": 1}})
    assert await CALLS[call](redis) == ANSWERS[call]
    assert await control.fired(fault) == fired + 1


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [fault for fault in PASSING if fault != "redis_slow"])
async def test_a_fault_that_does_not_pass_is_typed(
    redis: Upstash, control: Control, fault: str, call: str
) -> None:
    fired = await control.fired(fault)
    await control.set(**{fault: 1})
    with pytest.raises(StateUnavailable, match=f"no usable answer {ATTEMPTS} times"):
        await CALLS[call](redis)
    assert await control.fired(fault) == fired + ATTEMPTS


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", REFUSALS)
async def test_a_refusal_is_typed_at_once(redis: Upstash, control: Control, fault: str, call: str) -> None:
    fired = await control.fired(fault)
    await control.set(**{fault: 1})
    with pytest.raises(StateUnavailable):
        await CALLS[call](redis)
    # A refused pipeline comes as an answer that upstash-redis can't read.
    assert await control.fired(fault) - fired == (ATTEMPTS if call == "pipeline" else 1)
    await control.set(**{fault: 0})
    assert await redis.execute("GET", "a") is None, "nothing was carried out"


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        ("redis_timeout_before", None),
        ("redis_502", None),
        ("redis_timeout_after", "1"),
        ("redis_reset", "1"),
    ],
)
async def test_a_request_is_carried_out_or_not_as_its_fault_says(
    http: httpx.AsyncClient, redis: Upstash, control: Control, fault: str, value: str | None
) -> None:
    await control.set(**{fault: {"times": 1}})
    try:
        answer = await http.post("/", json=["SET", "a", "1"])
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (502, "text/html")
    except httpx.TransportError:
        assert fault != "redis_502"
    assert await redis.execute("GET", "a") == value


async def test_a_slow_request_is_carried_out_although_its_client_has_left(
    http: httpx.AsyncClient, redis: Upstash, control: Control
) -> None:
    await control.set(redis_slow={"times": 1})
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/", json=["SET", "a", "1"], timeout=0.2)
    assert await redis.execute("GET", "a") is None
    await eventually(lambda: redis.execute("GET", "a"), "it is carried out")


async def test_a_full_database_refuses_writes_and_scripts_whole_and_still_answers_reads(
    redis: Upstash, control: Control
) -> None:
    await redis.execute("SET", "before", "1")
    await control.set(redis_oom=1)
    assert await redis.execute("GET", "before") == "1"
    with pytest.raises(StateUnavailable, match="OOM command not allowed when used memory > 'maxmemory'"):
        await redis.execute("SET", "a", "1")
    with pytest.raises(StateUnavailable, match="OOM"):
        await redis.run(*REST)
    with pytest.raises(StateUnavailable):
        await redis.pipeline([["GET", "before"], ["SET", "a", "1"]])
    assert await redis.execute("DEL", "before") == 1, "what frees memory is not refused"
    await control.set(redis_oom=0)
    assert await redis.execute("EXISTS", "a", "rest:e", "failures:e") == 0
    assert await redis.run(*REST) == 5000


async def test_a_script_that_the_server_forgot_is_sent_whole(
    http: httpx.AsyncClient, redis: Upstash, control: Control
) -> None:
    await http.post("/_control/stats/reset")
    await control.set(redis_noscript={"times": 1})
    assert [await redis.run(*REST) for _ in range(2)] == [5000, 5000]
    commands = (await http.get("/_control/stats")).json()["commands"]
    # The EVALSHA that was answered NOSCRIPT reached no engine and is not counted.
    assert {name: commands.get(name) for name in ("EVAL", "EVALSHA")} == {"EVAL": 1, "EVALSHA": 1}


async def test_pushes_of_webhooks_and_the_control_interface_know_no_fault(
    http: httpx.AsyncClient, control: Control
) -> None:
    token = (await http.post("/", json=["ACL", "GENTOKEN", "inbox"])).json()["result"]
    rules = ["reset", "on", f">{token}", "~inbox:*", "+rpush"]
    await http.post("/", json=["ACL", "SETUSER", "inbox", *rules])
    shown = await control.set(redis_refused=1, redis_502=0.5, redis_timeout_after={"times": 3})
    pushed = await http.post(f"/rpush/inbox:1?_token={token}", content=b"{}", headers={"Authorization": ""})
    assert pushed.json() == {"result": 1}
    assert (await http.post("/", json=["PING"])).status_code == 401
    assert shown["redis_502"]["rate"] == 0.5
    assert shown["redis_timeout_after"]["times"] == 3
    assert shown.keys() == faults.EFFECTS.keys()


@pytest.mark.parametrize(
    "values",
    [{"redis_flood": 1}, {"redis_502": 2}, {"redis_502": True}, {"redis_502": {"times": -1}}, [1]],
)
async def test_a_value_that_makes_no_sense_is_refused_and_changes_nothing(
    http: httpx.AsyncClient, control: Control, values: Any
) -> None:
    before = await control.set()
    answer = await http.post("/_control/faults", json=values)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert await control.set() == before
