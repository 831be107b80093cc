"""Webhooks are hints: lost, doubled or forged, they change nothing."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud, count_runs, eventually, faults
from tests.flow.expected import assert_all_succeeded, counts, watch

REQUESTS = make_requests(200)
SHARDS = 8


@pytest.mark.parametrize("fault", ["drop_webhook", "double_webhook"])
async def test_a_webhook_that_is_lost_or_comes_twice_changes_nothing(client: BatchClient, fault: str) -> None:
    runs = await count_runs(client, "mistral")
    async with faults(client, **{fault: 1}):
        batch_id = (await client.call("create", stage="email", requests=REQUESTS))["id"]
        await assert_ends_well(client, batch_id)
    assert await count_runs(client, "mistral") - runs == SHARDS


async def assert_ends_well(client: BatchClient, batch_id: str) -> None:
    last = (await watch(client, batch_id))[-1]
    assert last["counts"] == counts(200, 200)
    assert last["lost_attempts"] == 0
    assert_all_succeeded(await client.lines(batch_id), REQUESTS)


def forged_events(batch_id: str) -> list[Any]:
    """Completion bodies about a batch as RunPod sends them, but for what they claim; and other JSON."""
    ours = {"batch": batch_id, "shard": 0, "attempt": 1, "endpoint": "mistral"}

    def event(status: str, **changes: Any) -> dict[str, Any]:
        return {
            "delayTime": 1,
            "executionTime": 2,
            "id": "forged-u1",
            "input": {**ours, **changes},
            "output": None,
            "status": status,
            "webhook": "http://127.0.0.1:9/",
        }

    return [
        *(event(status) for status in ("FAILED", "COMPLETED", "CANCELLED", "TIMED_OUT", "NONSENSE")),
        {**event("COMPLETED"), "output": {"state": "settled", "requests": 30, "succeeded": 30}},
        {**event("FAILED"), "output": [1], "error": "x" * 1000},
        event("FAILED", shard=3, attempt=99),
        event("FAILED", shard=10**6),
        event("FAILED", shard=-1),
        event("FAILED", shard="0x1"),
        event("FAILED", shard=None),
        event("FAILED", batch=f"batch_{0:024x}"),
        event("FAILED", batch="batch:*"),
        event("FAILED", batch=[batch_id]),
        event("FAILED", endpoint="llama"),
        event("FAILED", endpoint="no-such-endpoint"),
        event("FAILED", extra="y" * 100_000),
        *({}, {"input": {}}, {"input": None}, {"input": ours}, {"input": [ours], "output": ours}),
    ]


def forged_bodies(batch_id: str) -> list[bytes]:
    return [
        *(json.dumps(event).encode() for event in forged_events(batch_id)),
        *(b"garbage", b"[]", b"null", b"17", b'"text"', b"{", b"\x00\xff\xfe", "ключ".encode()),
        b"[" * 50_000,
        f'{{"input":{{"batch":"{batch_id}","shard":1e400,"endpoint":"mistral"}}}}'.encode(),
        f'{{"input":{{"batch":"{batch_id}","shard":NaN,"endpoint":"mistral"}}}}'.encode(),
        b"z" * 100_000,
    ]


async def test_forged_webhooks_change_nothing(
    cloud: FlowCloud, client: BatchClient, cloud_redis: Upstash
) -> None:
    runs = await count_runs(client, "mistral")
    async with faults(client, run_429=1):
        # Nothing runs while the bodies arrive, so that whatever changes is their doing.
        batch_id = (await client.call("create", stage="email", requests=REQUESTS))["id"]
        before = await client.call("status", id=batch_id)
        bodies = forged_bodies(batch_id)
        async with aiohttp.ClientSession() as platform:
            for number, body in enumerate(bodies):
                await push(cloud, platform, f"inbox:{number % 8}", body)

        async def all_read() -> bool:
            await client.call("status", id=batch_id)
            return not await cloud_redis.execute("EXISTS", *keys.INBOXES)

        await eventually(all_read, "the bodies are taken from the inboxes")
        assert await client.call("status", id=batch_id) == before
    async with aiohttp.ClientSession() as platform:
        refused = await count_runs(client, "mistral") - runs
        for number, body in enumerate(bodies):
            await push(cloud, platform, f"inbox:{number % 8}", body)
        await assert_ends_well(client, batch_id)
    assert await count_runs(client, "mistral") - runs - refused <= SHARDS + refused


async def push(cloud: FlowCloud, platform: aiohttp.ClientSession, inbox: str, body: bytes) -> None:
    """As the platform sends a webhook: straight into Redis, with the token in the URL."""
    url = f"{cloud.address['redis_url']}/rpush/{inbox}?_token={cloud.webhook_token}"
    async with platform.post(url, data=body) as answer:
        assert answer.status == 200, await answer.text()


async def test_a_forged_body_in_the_webhook_operation_changes_nothing(client: BatchClient) -> None:
    batch_id = (await client.call("create", stage="email", requests=REQUESTS))["id"]
    await hand_over(client, forged_events(batch_id))
    await assert_ends_well(client, batch_id)
    ended = await client.call("status", id=batch_id)
    await hand_over(client, forged_events(batch_id))
    assert await client.call("status", id=batch_id) == ended


async def hand_over(client: BatchClient, events: list[Any]) -> None:
    answers = await asyncio.gather(*(client.call("webhook", body=event) for event in events))
    assert answers == [{"accepted": True}] * len(events)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "lpush/inbox:0/x"),
        ("POST", "rpush/queue:mistral/x"),
        ("POST", "rpush/inbox/x"),
        ("POST", "set/inbox:0/x"),
        ("POST", "del/inbox:0"),
        ("GET", "lrange/inbox:0/0/-1"),
        ("GET", "llen/inbox:0"),
        ("GET", "get/idem:twice"),
        ("GET", "keys/*"),
        ("GET", "scan/0"),
        ("POST", "flushall"),
        ("POST", "eval/return%201/0"),
        ("POST", "evalsha/0000000000000000000000000000000000000000/0"),
        ("GET", "acl/whoami"),
        ("POST", "publish/inbox:0/x"),
    ],
)
async def test_the_webhook_token_can_append_to_inboxes_and_nothing_else(
    cloud: FlowCloud, method: str, path: str
) -> None:
    url = f"{cloud.address['redis_url']}/{path}?_token={cloud.webhook_token}"
    async with aiohttp.ClientSession() as platform, platform.request(method, url) as answer:
        assert answer.status == 400
        assert "NOPERM" in (await answer.json())["error"]
    many = f"{cloud.address['redis_url']}/multi-exec?_token={cloud.webhook_token}"
    commands = [["RPUSH", "inbox:0", "{}"], [part.replace("%20", " ") for part in path.split("/")]]
    async with aiohttp.ClientSession() as platform, platform.post(many, json=commands) as answer:
        assert "NOPERM" in await answer.text()
