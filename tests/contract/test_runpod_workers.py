"""Unmodified SDK workers against the local RunPod: stops, timeouts, deaths, silence, draining."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.contract.echo_cloud import Caller, WebhookReceiver, echo_cloud, eventually, webhook_receiver
from tests.local_cloud.queue.job import JsonObject
from tests.processes import has_ended

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRAGILE = "fragile"
PAIR = "pair"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caller() -> AsyncIterator[Caller]:
    async with echo_cloud({FRAGILE: 1, PAIR: 2}) as caller:
        yield caller


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as receiver:
        yield receiver


async def test_a_cancelled_job_is_stopped_in_its_worker_and_calls_no_webhook(
    caller: Caller, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    job_id = await _running_wait(caller, FRAGILE, tmp_path / "marks", webhook=receiver.url)
    cancelled = await caller.call("POST", FRAGILE, f"/cancel/{job_id}")
    assert cancelled.body == {"id": job_id, "status": "CANCELLED"}
    await _eventually_marked(tmp_path / "marks", "cancelled")
    assert (await caller.status(FRAGILE, job_id))["status"] == "CANCELLED"
    after = await caller.runsync(FRAGILE, {"do": "echo"}, webhook=receiver.url)
    await eventually(lambda: _received(receiver), "the next job's webhook arrives")
    assert [hook.body["id"] for hook in receiver.received] == [after["id"]]


async def test_a_job_over_its_execution_timeout_fails_and_is_stopped_in_its_worker(
    caller: Caller, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    job_id = await caller.run(FRAGILE, {"do": "wait", "marks": str(marks)}, policy={"executionTimeout": 500})
    job = await caller.end_of(FRAGILE, job_id)
    assert (job["status"], job["error"]) == ("FAILED", "executionTimeout exceeded")
    await _eventually_marked(marks, "cancelled")


async def test_a_running_job_over_its_ttl_is_deleted_and_stopped_in_its_worker(
    caller: Caller, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    job_id = await caller.run(FRAGILE, {"do": "wait", "marks": str(marks)}, policy={"ttl": 1000})
    assert (await caller.call("GET", FRAGILE, f"/status-sync/{job_id}")).status == 404
    await _eventually_marked(marks, "cancelled")


async def test_a_job_whose_worker_dies_is_run_once_more_by_the_restarted_worker(
    caller: Caller, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    job = await caller.runsync(FRAGILE, {"do": "die", "marks": str(marks), "survive_after": 1})
    assert (job["status"], job["output"]) == ("COMPLETED", {"survived": True})
    assert len(set(_lines(marks))) == 2


async def test_a_job_whose_workers_die_twice_fails_and_calls_its_webhook(
    caller: Caller, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    job = await caller.runsync(FRAGILE, {"do": "die", "marks": str(marks)}, webhook=receiver.url)
    assert (job["status"], job["error"], job["retries"]) == ("FAILED", "job timed out after 1 retries", 1)
    assert len(_lines(marks)) == 2
    await eventually(lambda: _received(receiver), "the webhook arrives")
    assert (await caller.runsync(FRAGILE, {"do": "echo", "value": 1}))["status"] == "COMPLETED"


async def test_a_killed_worker_leaves_no_process_of_its_group(caller: Caller) -> None:
    worker = await _ready_worker(caller, FRAGILE)
    process = psutil.Process(int(str(worker["pid"])))
    pings = process.children(recursive=True)
    assert pings
    process.kill()

    async def gone() -> bool:
        return all(has_ended(member) for member in [process, *pings])

    await eventually(gone, "worker and ping process are gone")
    assert (await _ready_worker(caller, FRAGILE))["worker_id"] != worker["worker_id"]


async def test_a_worker_that_asks_to_be_refreshed_is_replaced(caller: Caller) -> None:
    job = await caller.runsync(FRAGILE, {"do": "refresh"})
    assert job["status"] == "COMPLETED"

    async def answered_by_another() -> bool:
        again = await caller.runsync(FRAGILE, {"do": "echo"})
        return _field(again, "pid") != _field(job, "pid")

    await eventually(answered_by_another, "another process answers")


async def test_a_silent_worker_is_replaced_and_ended_when_it_is_back_and_its_late_reply_changes_nothing(
    caller: Caller, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    job_id = await caller.run(PAIR, {"do": "wait", "marks": str(marks), "seconds": 6})
    await _eventually_marked(marks, "started")
    first_pid = int(_lines(marks)[0].split()[1])
    frozen = next(worker for worker in await caller.workers(PAIR) if worker["pid"] == first_pid)
    signals = f"/workers/{frozen['worker_id']}/signal"
    assert (await caller.control("POST", signals, {"signal": "STOP"})).status == 200
    try:

        async def restarted() -> bool:
            return len(_lines(marks)) == 2

        await eventually(restarted, "the other worker starts the job")
        workers = (await caller.call("GET", PAIR, "/health")).body["workers"]
        assert isinstance(workers, dict)
        assert (workers["running"], workers["unhealthy"]) == (1, 1)
        assert len(await caller.workers(PAIR)) == 3
    finally:
        await caller.control("POST", signals, {"signal": "CONT"})

    async def ended() -> bool:
        workers = await caller.workers(PAIR)
        left = first_pid not in [worker["pid"] for worker in workers]
        return left and [worker["state"] for worker in workers] == ["ready", "ready"]

    await eventually(ended, "the first worker is heard of, and ends")
    done = await caller.end_of(PAIR, job_id)
    assert (done["status"], done["output"]) == ("COMPLETED", {"waited": 6})
    second_pid = int(_lines(marks)[1].split()[1])
    finisher = next(
        worker for worker in await caller.workers(PAIR) if worker["worker_id"] == done["workerId"]
    )
    assert first_pid != second_pid == finisher["pid"]


async def test_workers_are_started_and_drained_on_demand(caller: Caller, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    scaled = await caller.control("POST", "/workers", {"endpoint": FRAGILE, "count": 2})
    assert scaled.status == 200

    async def both_ready() -> bool:
        workers = await caller.workers(FRAGILE)
        return len(workers) == 2 and all(worker["state"] == "ready" for worker in workers)

    await eventually(both_ready, "two workers are ready")
    first = {str(worker["worker_id"]) for worker in await caller.workers(FRAGILE)}
    jobs = [await caller.run(FRAGILE, {"do": "wait", "marks": str(marks), "seconds": 1.5}) for _ in range(2)]
    await eventually(lambda: _lines_of(marks, 2), "both jobs run")
    assert (await caller.control("POST", "/workers", {"endpoint": FRAGILE, "count": 0})).status == 200
    for job_id in jobs:
        assert (await caller.end_of(FRAGILE, job_id))["status"] == "COMPLETED"
    assert (await caller.workers(FRAGILE)) == []

    async def gone() -> bool:
        health = (await caller.call("GET", FRAGILE, "/health")).body["workers"]
        return health == dict.fromkeys(
            ("idle", "initializing", "ready", "running", "throttled", "unhealthy"), 0
        )

    await eventually(gone, "the drained workers are gone")
    queued = await caller.run(FRAGILE, {"do": "echo"})
    assert (await caller.status(FRAGILE, queued))["status"] == "IN_QUEUE"
    assert (await caller.call("POST", FRAGILE, "/purge-queue")).body == {"removed": 1, "status": "completed"}
    await caller.control("POST", "/workers", {"endpoint": FRAGILE, "count": 1})
    assert (await _ready_worker(caller, FRAGILE))["worker_id"] not in first


async def test_a_frozen_worker_ends_with_its_cloud() -> None:
    async with echo_cloud({FRAGILE: 1}) as caller:
        worker = await _ready_worker(caller, FRAGILE)
        await caller.control("POST", f"/workers/{worker['worker_id']}/signal", {"signal": "STOP"})

        async def replaced() -> bool:
            return len(await caller.workers(FRAGILE)) == 2

        await eventually(replaced, "another worker has its place")
        pids = [int(str(worker["pid"])) for worker in await caller.workers(FRAGILE)]
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_a_signal_is_for_workers_of_this_cloud_and_one_of_four(caller: Caller) -> None:
    worker = await _ready_worker(caller, FRAGILE)
    assert (await caller.control("POST", "/workers/nobody/signal", {"signal": "KILL"})).status == 404
    for body in ({"signal": "HUP"}, {"signal": 9}, {}):
        answer = await caller.control("POST", f"/workers/{worker['worker_id']}/signal", body)
        assert answer.status == 400


async def test_scaling_an_unknown_endpoint_or_to_nonsense_is_refused(caller: Caller) -> None:
    for body in ({"endpoint": "gpt", "count": 1}, {"endpoint": FRAGILE, "count": -1}, {"endpoint": FRAGILE}):
        assert (await caller.control("POST", "/workers", body)).status == 400


async def test_jobs_of_a_full_endpoint_are_spread_over_its_workers(caller: Caller, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    job_input = {"do": "wait", "marks": str(marks), "seconds": 2}
    await asyncio.gather(*(caller.runsync(PAIR, job_input) for _ in range(8)))
    assert len(set(_lines(marks))) == 2


async def _running_wait(caller: Caller, endpoint: str, marks: Path, **fields: object) -> str:
    job_id = await caller.run(endpoint, {"do": "wait", "marks": str(marks)}, **fields)
    await _eventually_marked(marks, "started")
    return job_id


async def _eventually_marked(marks: Path, word: str) -> None:
    async def marked() -> bool:
        return any(line.startswith(word) for line in _lines(marks))

    await eventually(marked, f"the handler marks {word!r}")


async def _ready_worker(caller: Caller, endpoint: str) -> dict[str, object]:
    async def ready() -> list[dict[str, object]]:
        return [worker for worker in await caller.workers(endpoint) if worker["state"] == "ready"]

    return (await eventually(ready, f"a worker of {endpoint} is ready"))[0]


async def _received(receiver: WebhookReceiver) -> bool:
    return bool(receiver.received)


async def _lines_of(marks: Path, count: int) -> bool:
    return len(_lines(marks)) == count


def _field(job: JsonObject, name: str) -> object:
    output = job["output"]
    assert isinstance(output, dict)
    return output[name]


def _lines(marks: Path) -> list[str]:
    return marks.read_text(encoding="utf-8").splitlines() if marks.exists() else []
