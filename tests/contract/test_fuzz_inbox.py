"""Whatever stands in the inboxes, from a flood to a forgery: ticks take it away, and no batch is changed by it."""

import json
from time import monotonic
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.adapters import keys
from shared.adapters.redis_batches import HINTS_PER_INBOX
from tests.conftest import UpstashAddress
from tests.contract.hostile import FUZZ, built, mutated
from tests.contract.service import Service
from tests.contract.test_service import create, pages, settle

INBOX = keys.INBOXES[0]
TICK_LIMIT_S = 20.0
EVENT: dict[str, Any] = {
    "id": "fake-1",
    "status": "FAILED",
    "input": {"batch": "BATCH", "shard": 0, "attempt": 1, "endpoint": "mistral-ep"},
    "output": [{"state": "settled", "requests": 3, "succeeded": 3}],
    "error": "x",
    "webhook": "http://127.0.0.1:9/",
}
GARBAGE = [
    b"[" * 60_000,
    b'{"input":' * 5_000,
    b"\xff\xfe\x00",
    b"1e999",
    b"NaN",
    b"\x00",
    b'"',
    b"{}",
    b"x" * 70_000,
]


async def push(address: UpstashAddress, *bodies: bytes) -> None:
    """As the platform does it, or whoever knows the URL."""
    async with httpx.AsyncClient(base_url=address.url, timeout=60) as platform:
        for body in bodies:
            answer = await platform.post(f"/rpush/{INBOX}?_token={address.token}", content=body)
            assert answer.status_code == 200, answer.text


async def flood(service: Service, bodies: int, body: str) -> None:
    a_command = 1000
    for _ in range(bodies // a_command):
        await service.store.redis.execute("RPUSH", INBOX, *[body] * a_command)


async def tick(service: Service) -> float:
    """One round of repair; the seconds that it took."""
    began_s = monotonic()
    await service.operations._caretaker.tick(force=True)
    return monotonic() - began_s


async def length(service: Service) -> int:
    return int(await service.store.redis.execute("LLEN", INBOX))


async def drained(service: Service) -> None:
    while await length(service):
        assert await tick(service) < TICK_LIMIT_S


async def state(service: Service) -> dict[str, Any]:
    """What batches are made of. A look at a shard, which a hint asks for, renews its lease, and nothing else."""
    dump = await service.store.dump()
    return {name: value for name, value in dump.items() if name.startswith(("batch:", "payload:", "queue:"))}


@pytest.mark.parametrize("name", ["small", "forged"])
async def test_a_flood_of_webhooks_is_trimmed_by_the_first_tick_and_each_tick_takes_a_bounded_time(
    service: Service, name: str
) -> None:
    batch_id = await create(service, ["mistral"] * 3)
    before = await state(service)
    forged = {**EVENT, "input": {**EVENT["input"], "batch": batch_id}, "output": None}
    await flood(service, 100_000, "{}" if name == "small" else json.dumps(forged))
    assert await tick(service) < TICK_LIMIT_S
    assert await length(service) <= 10_000
    assert await service.store.redis.execute("PTTL", INBOX) > 0
    asked = len(service.jobs.asked)
    assert await tick(service) < TICK_LIMIT_S
    # All of them point at one shard, which is looked at once a tick.
    assert len(service.jobs.asked) - asked <= 1
    assert await state(service) == before


async def test_bodies_of_9_mb_are_thrown_away_unread(
    service: Service, upstash_server: UpstashAddress
) -> None:
    batch_id = await create(service, ["mistral"] * 3)
    before = await state(service)
    padded = json.dumps({**EVENT, "input": {**EVENT["input"], "batch": batch_id}, "error": "x" * 9_000_000})
    await push(upstash_server, *[padded.encode()] * (HINTS_PER_INBOX + 2))
    await drained(service)
    assert service.jobs.asked == []
    assert await state(service) == before


@settings(FUZZ, max_examples=30)
@given(st.lists(mutated(EVENT) | st.binary(min_size=1) | st.sampled_from(GARBAGE), min_size=1, max_size=8))
async def test_forged_webhooks_change_nothing(
    service: Service, upstash_server: UpstashAddress, bodies: list[Any]
) -> None:
    batches, _ = await service.store.batches.listing(1, None)
    batch_id = batches[0].id if batches else await create(service, ["mistral"] * 3)
    before = await state(service)
    await push(upstash_server, *(raw(body, batch_id) for body in bodies))
    await drained(service)
    assert await state(service) == before


def raw(body: Any, batch_id: str) -> bytes:
    """A body as it is sent, about the batch; what can't be written as JSON is cut short."""
    if isinstance(body, bytes):
        return body
    try:
        return json.dumps(built(body)).replace('"BATCH"', f'"{batch_id}"').encode()
    except (RecursionError, ValueError):
        return b'{"input": {"batch": "'


async def test_results_are_the_workers_whatever_webhooks_said(
    service: Service, upstash_server: UpstashAddress
) -> None:
    batch_id = await create(service, ["mistral"] * 3)
    lies = [raw({**EVENT, "status": status}, batch_id) for status in ("COMPLETED", "FAILED", "CANCELLED")]
    await push(upstash_server, *lies, *GARBAGE)
    await drained(service)
    await settle(service, batch_id)
    await push(upstash_server, *lies)
    await drained(service)
    [lines] = await pages(service, batch_id)
    assert [line["message"]["content"][0]["text"] for line in lines] == [f"text id-{n}" for n in range(3)]
