"""Interactive calls and suspects in one engine: a call waits while a shard runs alone, and a suspect for the calls."""

import asyncio
from typing import Any

import pytest

from handlers.catalog import CARDS
from handlers.model_worker import Handler
from shared.config import load_settings
from shared.errors import EngineDead
from tests.fakes import ScriptedEngine, ScriptedReply
from tests.unit.test_config import ENV

CALL = {"id": "job", "input": {"prompt": "hi"}}
ANSWER = b'{"choices": [{"text": "ok"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
DEADLINE_S = 5.0
TURNS = 20


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def handler(engine: ScriptedEngine) -> Handler:
    return Handler(CARDS[0], load_settings(ENV, CARDS), engine, concurrency=4)


async def call(handler: Handler) -> list[Any]:
    return [chunk async for chunk in handler.work(CALL)]


async def pause() -> None:
    """Whoever can go on has gone on."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def is_empty(handler: Handler) -> bool:
    """Whether a suspect would be let in at once."""
    suspect = asyncio.create_task(handler._room.enter(alone=True))
    await pause()
    entered = suspect.done()
    if entered:
        handler._room.leave()
    else:
        suspect.cancel()
        await pause()
    return entered


async def test_a_call_waits_while_a_shard_runs_alone(handler: Handler, engine: ScriptedEngine) -> None:
    engine.replies.append(ScriptedReply([ANSWER]))
    await handler._room.enter(alone=True)
    job = asyncio.create_task(call(handler))
    await pause()
    assert engine.calls == []
    handler._room.leave()
    assert len(await asyncio.wait_for(job, DEADLINE_S)) == 1
    assert await is_empty(handler)


async def test_calls_and_shards_in_company_run_beside_each_other(
    handler: Handler, engine: ScriptedEngine
) -> None:
    engine.replies.extend([ScriptedReply([ANSWER]), ScriptedReply([ANSWER])])
    await handler._room.enter(alone=False)
    answers = await asyncio.wait_for(asyncio.gather(call(handler), call(handler)), DEADLINE_S)
    assert [len(answer) for answer in answers] == [1, 1]


async def test_a_suspect_waits_for_the_end_of_a_call(handler: Handler, engine: ScriptedEngine) -> None:
    more = asyncio.Event()
    engine.replies.append(ScriptedReply([more, ANSWER]))
    job = asyncio.create_task(call(handler))
    await pause()
    assert len(engine.calls) == 1
    assert not await is_empty(handler)
    more.set()
    await asyncio.wait_for(job, DEADLINE_S)
    assert await is_empty(handler)


async def test_a_call_that_is_cancelled_while_it_waits_takes_no_place(
    handler: Handler, engine: ScriptedEngine
) -> None:
    await handler._room.enter(alone=True)
    job = asyncio.create_task(call(handler))
    await pause()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    handler._room.leave()
    assert await is_empty(handler)
    assert engine.calls == []


async def test_a_call_that_fails_leaves_its_place(handler: Handler, engine: ScriptedEngine) -> None:
    engine.replies.append(ScriptedReply([EngineDead("it died")]))
    with pytest.raises(EngineDead):
        await call(handler)
    assert await is_empty(handler)
