"""The product's Redis client: bounded, resent where a reply was lost, every fault one short typed error."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from shared.adapters import upstash
from shared.adapters.upstash import ATTEMPTS, PIPELINE_BYTES, Upstash
from shared.errors import StateUnavailable
from tests.conftest import UpstashAddress
from tests.contract.misbehaving import BAD_GATEWAY, SILENCE, Answer, Misbehaving

TOKEN = "secret-token"
MESSAGE_MAX_CHARS = 300


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstash, "RETRY_PAUSE_S", 0.0)


@pytest_asyncio.fixture
async def proxy(redis: Upstash, upstash_server: UpstashAddress) -> AsyncIterator[Misbehaving]:
    """In front of the local Upstash, on an empty database."""
    async with Misbehaving(upstash_server.url).serving() as server:
        yield server


@pytest_asyncio.fixture
async def client(proxy: Misbehaving, upstash_server: UpstashAddress) -> AsyncIterator[Upstash]:
    made = Upstash(proxy.url, upstash_server.token)
    yield made
    await made.close()


def commands(proxy: Misbehaving) -> list[str]:
    return [str(json.loads(call.body)[0]) for call in proxy.calls]


REST = ("rest", ["rest:e", "failures:e"], {"retry_after_ms": 5000, "random": 0.0, "cap_ms": 1000})


async def test_an_unknown_script_is_sent_whole_and_known_from_then_on(
    client: Upstash, proxy: Misbehaving
) -> None:
    await client.execute("SCRIPT", "FLUSH")
    proxy.calls.clear()
    assert await client.run(*REST) == 5000
    assert await client.run(*REST) == 5000
    assert commands(proxy) == ["EVALSHA", "EVAL", "EVALSHA"]


async def test_a_lost_reply_is_asked_for_again(client: Upstash, proxy: Misbehaving) -> None:
    await client.run(*REST)
    proxy.calls.clear()
    proxy.lose = 1
    assert await client.run(*REST) == 5000
    assert commands(proxy) == ["EVALSHA", "EVALSHA"]


async def test_a_lost_reply_to_a_pipeline_is_asked_for_again(client: Upstash, proxy: Misbehaving) -> None:
    proxy.lose = 1
    assert await client.pipeline([["SET", "a", "1"], ["GET", "a"]]) == [True, "1"]
    assert len(proxy.calls) == 2


@pytest.mark.parametrize(
    "fault",
    [
        BAD_GATEWAY,
        Answer(502, '{"message": "upstream"}'),
        Answer(200, '"text"'),
        Answer(200, ""),
    ],
    ids=["html", "other-json", "a-text", "empty"],
)
@pytest.mark.parametrize("call", ["command", "script", "pipeline"])
async def test_an_answer_that_is_not_upstashs_is_tried_again_then_typed(
    client: Upstash, proxy: Misbehaving, fault: Answer, call: str
) -> None:
    proxy.answers.extend([fault] * ATTEMPTS)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "command": lambda: client.execute("GET", "a"),
        "script": lambda: client.run(*REST),
        "pipeline": lambda: client.pipeline([["GET", "a"], ["GET", "b"]]),
    }
    with pytest.raises(StateUnavailable) as caught:
        await calls[call]()
    assert len(proxy.calls) == ATTEMPTS
    assert len(caught.value.message) < MESSAGE_MAX_CHARS
    assert await client.execute("GET", "a") is None


async def test_one_bad_gateway_is_not_felt(client: Upstash, proxy: Misbehaving) -> None:
    proxy.answers.append(BAD_GATEWAY)
    assert await client.execute("SET", "a", "1")


async def test_a_refused_command_is_typed_and_not_tried_again(client: Upstash, proxy: Misbehaving) -> None:
    await client.execute("SET", "a", "text")
    proxy.calls.clear()
    with pytest.raises(StateUnavailable, match="refused"):
        await client.execute("HGET", "a", "b")
    assert len(proxy.calls) == 1


async def test_a_refused_command_in_a_pipeline_is_typed_and_leaves_nothing_behind(client: Upstash) -> None:
    await client.execute("SET", "a", "text")
    with pytest.raises(StateUnavailable):
        await client.pipeline([["SET", "b", "1"], ["HGET", "a", "b"]])
    assert await client.pipeline([["GET", "b"]]) == ["1"]


async def test_an_error_inside_a_script_is_typed(client: Upstash) -> None:
    await client.execute("SET", "rest:e", "1")
    await client.execute("HSET", "failures:e", "a", "b")
    with pytest.raises(StateUnavailable):
        await client.run(*REST)


@pytest.mark.parametrize("call", ["command", "pipeline"])
async def test_a_bad_token_is_typed_and_not_shown(proxy: Misbehaving, call: str) -> None:
    client = Upstash(proxy.url, TOKEN)
    with pytest.raises(StateUnavailable) as caught:
        await (client.execute("GET", "a") if call == "command" else client.pipeline([["GET", "a"]]))
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None
    await client.close()


async def test_silence_ends_in_a_typed_error(
    client: Upstash, proxy: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstash, "CALL_TIMEOUT_S", 0.05)
    proxy.answers.extend([SILENCE] * ATTEMPTS)
    with pytest.raises(StateUnavailable, match="Timeout"):
        await client.execute("GET", "a")
    assert len(proxy.calls) == ATTEMPTS


async def test_one_silence_is_not_felt(
    client: Upstash, proxy: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstash, "CALL_TIMEOUT_S", 0.3)
    proxy.answers.append(SILENCE)
    assert await client.execute("SET", "a", "1")


async def test_nobody_listening_is_typed() -> None:
    client = Upstash("http://127.0.0.1:9", TOKEN)
    with pytest.raises(StateUnavailable) as caught:
        await client.execute("GET", "a")
    assert TOKEN not in str(caught.value)
    await client.close()


async def test_a_large_pipeline_is_split_and_answered_in_order(client: Upstash, proxy: Misbehaving) -> None:
    text = "x" * (PIPELINE_BYTES // 3)
    sets = [["SET", f"k{number}", text] for number in range(7)]
    assert await client.pipeline(sets) == [True] * 7
    assert len(proxy.calls) == 4
    assert max(len(call.body) for call in proxy.calls) < PIPELINE_BYTES + 1000


async def test_one_command_beyond_the_size_still_goes_alone(client: Upstash, proxy: Misbehaving) -> None:
    large = "x" * (PIPELINE_BYTES + 1)
    assert await client.pipeline([["GET", "a"], ["SET", "b", large], ["GET", "a"]]) == [None, True, None]
    assert len(proxy.calls) == 3


async def test_an_empty_pipeline_is_no_call(client: Upstash, proxy: Misbehaving) -> None:
    assert await client.pipeline([]) == []
    assert proxy.calls == []


async def test_calls_at_once_are_bounded(
    client: Upstash, proxy: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = await asyncio.gather(*(client.execute("ECHO", str(number)) for number in range(100)))
    assert answers == [str(number) for number in range(100)]


async def test_the_clock_offset_reaches_the_scripts(upstash_server: UpstashAddress, redis: Upstash) -> None:
    ahead = Upstash(upstash_server.url, upstash_server.token, clock_offset_ms=lambda: 3_600_000)
    keys = ["batch:x", "batch:x:shards", "w", "r"]
    now = (await redis.run("inspect", keys, {"id": "x", "shard": 0}))["now"]
    later = (await ahead.run("inspect", keys, {"id": "x", "shard": 0}))["now"]
    assert 3_600_000 <= later - now < 3_660_000
    await ahead.close()
