"""Callbacks through the local cloud: a real receiver is told of every end, at least once, and by nobody else."""

import asyncio
import hashlib
import hmac
import json
import socket
import subprocess
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from handlers.catalog import CARDS
from shared.adapters.redis_batches import CALLBACK_LEASE_MS
from shared.config import load_settings
from shared.wiring import build_service
from tests.client import BatchClient, make_requests
from tests.contract.receiver import Receiver, receiver
from tests.flow.cloud import CALLBACK_SECRET, FlowCloud, connected, count_fired, eventually, flow_cloud
from tests.flow.crashes import PATIENCE_S, armed, struck
from tests.local_cloud.cloud import REPOSITORY

pytestmark = pytest.mark.usefixtures("built_adapter")
TOKEN = "the-receivers-own-token"


@pytest.fixture(scope="session")
def built_adapter() -> None:
    if not (REPOSITORY / "node-adapter/dist/esm/callback.js").exists():
        subprocess.run(["npm", "run", "build"], cwd=REPOSITORY / "node-adapter", check=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def calling_cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FlowCloud]:
    """It may call this machine, and its workers crash on demand."""
    env = {
        "CALLBACK_SECRET": CALLBACK_SECRET,
        "CALLBACK_ALLOW_PRIVATE": "1",
        "LOCAL_FAILPOINTS": "1",
        "LOCAL_WORKERS": "batch-api=2,mistral=2,llama=0",
    }
    async with flow_cloud(tmp_path_factory.mktemp("calling-cloud"), **env) as cloud:
        yield cloud


@pytest_asyncio.fixture
async def calling_client(calling_cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    async with connected(calling_cloud) as client:
        yield client


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Receiver]:
    async with receiver() as here:
        yield here


def url_of(here: Receiver) -> str:
    return f"http://127.0.0.1:{here.port}/ended?token={TOKEN}"


async def create(client: BatchClient, url: str, count: int = 4) -> str:
    requests = make_requests(count)
    return str((await client.call("create", stage="email", requests=requests, callback_url=url))["id"])


async def arrived(here: Receiver, count: int) -> None:
    async def enough() -> bool:
        return len(here.received) >= count

    await eventually(enough, f"{count} events arrive", PATIENCE_S)


async def settled(client: BatchClient, batch_id: str, state: str, attempts: int) -> dict[str, Any]:
    """The callback's status once it is so, after at least so many attempts."""

    async def look() -> dict[str, Any] | None:
        callback: dict[str, Any] = (await client.call("status", id=batch_id))["callback"]
        return callback if callback["state"] == state and callback["attempts"] >= attempts else None

    callback = await eventually(look, f"the callback is {state} after {attempts} attempts", PATIENCE_S)
    assert callback is not None
    return callback


@asynccontextmanager
async def later(cloud: FlowCloud, seconds: float) -> AsyncIterator[None]:
    """One more process of the service makes a tick, so many seconds from now."""
    service = build_service(load_settings(cloud.worker_env, CARDS), lambda: round(1000 * seconds))
    await service.caretaker.tick(force=True)
    if service.caretaker.under_way():
        await asyncio.wait(service.caretaker.under_way())
    yield
    await service.close()


def event_id(batch_id: str) -> str:
    return f"evt_{batch_id.removeprefix('batch_')}"


def check_signature(headers: Mapping[str, str], body: str) -> None:
    """By the convention's text, with nothing of ours."""
    key = b64decode(CALLBACK_SECRET.removeprefix("whsec_"))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    expected = b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def verdict_of_the_adapter(headers: Mapping[str, str], body: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *("node", "tests/flow/callback_verify.mjs", CALLBACK_SECRET, json.dumps(dict(headers)), body),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    verdict: dict[str, Any] = json.loads(out)
    return verdict


async def test_the_end_is_told_once_signed_and_with_nobody_asking(
    calling_client: BatchClient, calling_cloud: FlowCloud, here: Receiver
) -> None:
    batch_id = await create(calling_client, url_of(here), 100)
    await arrived(here, 1)
    [(path, headers, body)] = here.received
    assert path == f"/ended?token={TOKEN}"
    check_signature(headers, body)
    verdict = await verdict_of_the_adapter(headers, body)
    assert verdict == {"event": {**json.loads(body), "id": event_id(batch_id)}, "forged": "SignatureError"}
    status = await calling_client.call("status", id=batch_id)
    assert verdict["event"]["type"] == "batch.ended"
    assert verdict["event"]["timestamp"] == status["ended_at"]
    assert verdict["event"]["data"] == {
        name: status[name] for name in ("id", "processing_status", "counts", "created_at", "ended_at")
    }
    callback = await settled(calling_client, batch_id, "delivered", 1)
    assert callback == {"host": "127.0.0.1", "state": "delivered", "attempts": 1, "error": None}
    await calling_client.call("reconcile")
    async with later(calling_cloud, 86_000):
        assert len(here.received) == 1


async def test_a_receiver_that_is_down_is_told_when_it_is_up_again(
    calling_client: BatchClient, calling_cloud: FlowCloud
) -> None:
    # Taken, so that nobody else answers there, and not listening.
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        batch_id = await create(calling_client, f"http://127.0.0.1:{port}/ended")
        callback = await settled(calling_client, batch_id, "pending", 1)
        assert callback["error"] == "no connection (ConnectError)"
        # Also where it was tried twice meanwhile.
        async with receiver(at=place) as here, later(calling_cloud, 400):
            await arrived(here, 1)
            await settled(calling_client, batch_id, "delivered", 2)
        [(_, headers, body)] = here.received
        check_signature(headers, body)


async def test_a_worker_that_is_killed_between_telling_and_noting_has_it_told_again_with_the_same_id(
    calling_client: BatchClient, calling_cloud: FlowCloud, here: Receiver
) -> None:
    before = await count_fired(calling_client, "kill_before_note")
    async with armed(calling_client, "kill_before_note"):
        batch_id = await create(calling_client, url_of(here))
        await struck(calling_client, "kill_before_note", before)
    assert len(here.received) == 1
    async with later(calling_cloud, CALLBACK_LEASE_MS / 1000 + 1):
        await arrived(here, 2)
        await settled(calling_client, batch_id, "delivered", 1)
    first, second = here.received
    assert first[1]["webhook-id"] == second[1]["webhook-id"] == event_id(batch_id)
    assert first[2] == second[2]


async def test_many_batches_and_many_drivers_at_once_tell_each_end_once(
    calling_client: BatchClient, here: Receiver
) -> None:
    batch_ids = await asyncio.gather(*(create(calling_client, url_of(here)) for _ in range(12)))

    async def drive(batch_id: str) -> None:
        await settled(calling_client, batch_id, "delivered", 1)
        await calling_client.call("reconcile")

    await asyncio.gather(*(drive(batch_id) for batch_id in batch_ids for _ in range(2)))
    ids = [headers["webhook-id"] for _, headers, _ in here.received]
    assert sorted(ids) == sorted(event_id(batch_id) for batch_id in batch_ids)


async def test_the_end_of_a_canceled_and_of_a_failed_batch_is_told_too(
    calling_client: BatchClient, here: Receiver
) -> None:
    failing = make_requests(2, "[[error]]")
    failed = await calling_client.call("create", stage="email", requests=failing, callback_url=url_of(here))
    # No worker serves its model.
    waiting = await calling_client.call(
        "create", stage="polish", requests=make_requests(2), callback_url=url_of(here)
    )
    await calling_client.call("cancel", id=waiting["id"])
    for batch in (failed, waiting):
        await settled(calling_client, batch["id"], "delivered", 1)
    counts = {body["data"]["id"]: body["data"]["counts"] for body in map(json.loads, bodies(here))}
    assert counts[failed["id"]]["errored"] == 2
    assert counts[waiting["id"]]["canceled"] == 2


def bodies(here: Receiver) -> list[str]:
    return [body for *_, body in here.received]


async def test_a_redirect_is_not_followed(calling_client: BatchClient, here: Receiver) -> None:
    here.answer = web.Response(status=307, headers={"location": f"http://127.0.0.1:{here.port}/inside"})
    batch_id = await create(calling_client, url_of(here))
    callback = await settled(calling_client, batch_id, "pending", 1)
    assert callback["error"] == "the receiver answered 307"
    assert {path.partition("?")[0] for path, *_ in here.received} == {"/ended"}


async def test_a_receiver_that_is_gone_is_not_asked_again(
    calling_client: BatchClient, calling_cloud: FlowCloud, here: Receiver
) -> None:
    here.answer = web.Response(status=410)
    batch_id = await create(calling_client, url_of(here))
    await settled(calling_client, batch_id, "failed", 1)
    async with later(calling_cloud, 40_000):
        assert len(here.received) == 1


async def test_a_name_that_leads_to_this_machine_is_not_called_unless_that_is_allowed(
    client: BatchClient, here: Receiver
) -> None:
    batch_id = await create(client, f"https://localhost:{here.port}/ended")
    callback = await settled(client, batch_id, "failed", 1)
    assert callback["error"] == "its address is not public"
    assert here.received == []


async def test_neither_logs_nor_statuses_hold_the_urls_token(
    calling_client: BatchClient, calling_cloud: FlowCloud, here: Receiver
) -> None:
    here.answer = web.Response(status=500)
    batch_id = await create(calling_client, url_of(here))
    await settled(calling_client, batch_id, "pending", 1)
    shown = [await calling_client.call("status", id=batch_id), await calling_client.call("list")]
    logs = calling_cloud.logs()
    assert "the receiver answered 500" in logs
    assert TOKEN not in f"{logs}{shown}"
