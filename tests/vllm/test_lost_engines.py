"""Real engines that end in the middle of their shards: nothing is lost, nothing comes twice, nothing stays behind."""

from typing import Any

import psutil

from tests.client import BatchClient
from tests.flow.cloud import eventually, wait_for_worker
from tests.flow.expected import counts, watch
from tests.processes import has_ended
from tests.vllm.conftest import PATIENCE_S
from tests.vllm.test_batches import FULL, assert_full, request, running


def engine_core(worker: psutil.Process) -> psutil.Process:
    """The process of a worker in which its engine runs."""
    return next(
        child for child in worker.children(recursive=True) if "EngineCore" in "".join(child.cmdline())
    )


async def ended(*processes: psutil.Process) -> None:
    async def all_ended() -> bool:
        return all(has_ended(process) for process in processes)

    await eventually(all_ended, "the worker and all of its own have ended", PATIENCE_S)


async def replaced(client: BatchClient, endpoint: str, before: dict[str, Any]) -> None:
    """Waits until another worker is there."""

    async def another() -> bool:
        workers = (await client.control("/workers"))[endpoint]
        return any(worker["pid"] != before["pid"] and worker["state"] == "ready" for worker in workers)

    await eventually(another, f"another worker of {endpoint} is ready", PATIENCE_S)


async def test_a_worker_asked_to_end_finishes_what_is_short_and_gives_the_rest_back(
    client: BatchClient,
) -> None:
    # Any engine needs several times the grace for so many long ones, and a part of it for the short one: two cores need
    # about 50 s and less than one.
    long = [request(n, "mistral", min_tokens=8000, max_tokens=8000) for n in range(112)]
    short = request(112, "mistral", min_tokens=100, max_tokens=100)
    worker = await wait_for_worker(client, "mistral", PATIENCE_S)
    process = psutil.Process(worker["pid"])
    family = [process, *process.children(recursive=True)]
    long_id, short_id = await running(client, long), await running(client, [short])
    process.terminate()
    await ended(*family)
    assert (await client.call("status", id=short_id))["processing_status"] == "ended"
    assert (await client.call("status", id=long_id))["counts"]["pending"] == 112
    [line] = await client.lines(short_id)
    assert (line["status"], line["usage"]["output_tokens"]) == ("succeeded", 100)

    async def taken_up() -> bool:
        workers = (await client.control("/workers"))["mistral"]
        return any(worker["pid"] != process.pid and worker["jobs"] for worker in workers)

    await eventually(taken_up, "another worker runs what was given back", PATIENCE_S)
    await client.call("cancel", id=long_id)
    last = (await watch(client, long_id, poll_s=0.2, timeout_s=PATIENCE_S))[-1]
    assert last["counts"] == counts(112, 0, canceled=112)
    assert last["lost_attempts"] == 0, "who gives work back is not to blame"


async def test_a_killed_engine_core_ends_its_worker_and_the_shards_run_elsewhere(client: BatchClient) -> None:
    requests = [request(n, "llama-70b", min_tokens=2000, max_tokens=2000) for n in range(64)]
    worker = await wait_for_worker(client, "llama", PATIENCE_S)
    process = psutil.Process(worker["pid"])
    batch_id = await running(client, requests)
    engine_core(process).kill()
    await ended(process)
    await replaced(client, "llama", worker)
    last = (await watch(client, batch_id, poll_s=0.2, timeout_s=PATIENCE_S))[-1]
    assert last["counts"] == counts(64, 64)
    lines = await client.lines(batch_id)
    assert [line["custom_id"] for line in lines] == [item["custom_id"] for item in requests]
    assert {line["usage"]["output_tokens"] for line in lines} == {2000}


async def test_an_idle_worker_whose_engine_core_is_killed_is_replaced_before_the_next_call(
    client: BatchClient,
) -> None:
    worker = await wait_for_worker(client, "llama", PATIENCE_S)
    process = psutil.Process(worker["pid"])
    engine_core(process).kill()
    await ended(process)
    await replaced(client, "llama", worker)
    requests = [request(0, "llama-70b", **FULL)]
    batch_id = (await client.call("create", stage="polish", requests=requests))["id"]
    assert (await client.wait(batch_id, timeout_s=PATIENCE_S))["lost_attempts"] == 0
    [line] = await client.lines(batch_id)
    assert_full(line)
