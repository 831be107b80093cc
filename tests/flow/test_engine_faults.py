"""Requests that fail in the engine, alone or with all of their worker."""

from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud, eventually, wait_for_worker
from tests.flow.expected import (
    assert_all_succeeded,
    assert_failed,
    counts,
    succeeded_line,
    watch,
    without_latency,
)

# Each death costs a worker's start, and after some of them the platform waits before the next one.
DYING_S = 180.0
# Two in company, and two alone of the request itself. Between them its shard may be halved, and a death may be too many
# in a row to be believed.
FEWEST_DEATHS = 4
MOST_DEATHS = 12


async def test_failing_requests_are_errored_alone_and_passing_faults_are_survived(
    client: BatchClient,
) -> None:
    requests = make_requests(40)
    markers = {5: "[[error]]", 11: "[[busy]]", 17: "[[busy-once]]", 39: "[[error]]"}
    for number, marker in markers.items():
        requests[number]["params"]["messages"][0]["content"] += f" {marker}"
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    last = (await watch(client, batch_id))[-1]
    assert last["counts"] == counts(40, 37, 3)
    assert last["lost_attempts"] == 0
    lines = await client.lines(batch_id)
    for number, (line, request) in enumerate(zip(lines, requests, strict=True)):
        match markers.get(number):
            case "[[error]]":
                assert_failed(line, "errored", "invalid_request_error", "mistral")
            case "[[busy]]":
                assert_failed(line, "errored", "api_error", "mistral")
                assert line["latency_ms"] >= 150, "two pauses lie between three attempts"
            case _:
                assert without_latency(line) == succeeded_line(request, "mistral")
        assert line["custom_id"] == request["custom_id"]


async def test_a_request_that_kills_its_worker_costs_a_bounded_number_of_workers_and_the_next_one_serves_on(
    small_cloud: FlowCloud, small_client: BatchClient
) -> None:
    requests = make_requests(22)
    for request in requests[10:12]:
        request["metadata"] = {"model_hint": "llama-70b"}
    requests[10]["params"]["messages"][0]["content"] += " [[kill]]"
    starts = count_starts(small_cloud)
    batch_id = (await small_client.call("create", stage="email", requests=requests))["id"]
    last = (await watch(small_client, batch_id, poll_s=0.2, timeout_s=DYING_S))[-1]
    assert last["counts"] == counts(22, 21, 1)
    lines = await small_client.lines(batch_id)
    assert_failed(lines[10], "errored", "worker_error", "llama-70b")
    assert_all_succeeded(lines[:10] + lines[11:], requests[:10] + requests[11:])
    assert last["lost_attempts"] >= FEWEST_DEATHS
    assert FEWEST_DEATHS - 1 <= count_starts(small_cloud) - starts <= MOST_DEATHS

    after = make_requests(3)
    batch_id = (await small_client.call("create", stage="polish", requests=after))["id"]
    await watch(small_client, batch_id, poll_s=0.2, timeout_s=DYING_S)
    assert_all_succeeded(await small_client.lines(batch_id), after, "llama-70b")


async def test_a_worker_whose_engine_died_ends_and_others_run_its_shards(
    small_cloud: FlowCloud, small_client: BatchClient
) -> None:
    requests = make_requests(12)
    requests[3]["params"]["messages"][0]["content"] += " [[dead]]"
    before = (await wait_for_worker(small_client, "llama", DYING_S))["pid"]
    batch_id = (await small_client.call("create", stage="polish", requests=requests))["id"]
    last = (await watch(small_client, batch_id, poll_s=0.2, timeout_s=DYING_S))[-1]
    assert last["counts"] == counts(12, 11, 1)
    lines = await small_client.lines(batch_id)
    assert_failed(lines[3], "errored", "worker_error", "llama-70b")
    del lines[3], requests[3]
    assert_all_succeeded(lines, requests, "llama-70b")
    # Each death ended a process by itself, and the platform started the next one.
    assert last["lost_attempts"] >= FEWEST_DEATHS
    assert "leaving" in small_cloud.logs("llama-*")

    async def replaced() -> bool:
        return bool((await wait_for_worker(small_client, "llama", DYING_S))["pid"] != before)

    await eventually(replaced, "another worker is there", DYING_S)


def count_starts(cloud: FlowCloud) -> int:
    return cloud.logs("llama-*").count("=== worker llama-")
