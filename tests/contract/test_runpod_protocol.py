"""Unmodified SDK workers against the local RunPod: what a caller of the REST API sees."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.contract.echo_cloud import (
    Answer,
    Caller,
    WebhookReceiver,
    echo_cloud,
    eventually,
    webhook_receiver,
)
from tests.local_cloud.queue.faults import FAULTS
from tests.local_cloud.queue.job import JsonObject

pytestmark = pytest.mark.asyncio(loop_scope="module")

ECHO = "echo"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Caller]:
    async with echo_cloud({ECHO: 1, "stream": 1}) as caller:
        yield caller


@pytest_asyncio.fixture(loop_scope="module")
async def caller(running: Caller) -> AsyncIterator[Caller]:
    yield running
    running.cloud.faults.set_values(dict.fromkeys(FAULTS, 0))


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as receiver:
        yield receiver


async def test_runsync_answers_the_finished_job(caller: Caller) -> None:
    job = await caller.runsync(ECHO, {"do": "echo", "value": "grüße"})
    assert job.keys() == {"id", "status", "delayTime", "executionTime", "output", "workerId"}
    assert (job["status"], job["workerId"]) == ("COMPLETED", (await caller.workers(ECHO))[0]["worker_id"])
    output = job["output"]
    assert isinstance(output, dict)
    assert output["echo"] == "grüße"
    assert await caller.status(ECHO, str(job["id"])) == job


async def test_many_jobs_at_once_each_get_their_own_output(caller: Caller) -> None:
    ids = [await caller.run(ECHO, {"do": "echo", "value": n}) for n in range(8)]
    outputs = [(await caller.end_of(ECHO, job_id))["output"] for job_id in ids]
    assert [output["echo"] for output in outputs if isinstance(output, dict)] == list(range(8))


async def test_a_runsync_over_its_wait_answers_id_and_status_and_the_job_runs_on(
    caller: Caller, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    body = {"input": {"do": "wait", "marks": str(marks), "seconds": 1.3}}
    first = (await caller.call("POST", ECHO, "/runsync?wait=1", body)).body
    # A worker takes it within a second, if nothing else keeps the machine busy.
    assert first["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert first.keys() == {"id", "status"}
    assert (await caller.end_of(ECHO, str(first["id"])))["output"] == {"waited": 1.3}


async def test_the_worker_is_handed_webhook_and_policy(caller: Caller, receiver: WebhookReceiver) -> None:
    policy = {"executionTimeout": 60_000}
    job = await caller.runsync(ECHO, {"do": "describe"}, webhook=receiver.url, policy=policy)
    assert job["output"] == {"job": {"id": job["id"], "webhook": receiver.url, "policy": policy}}


async def test_an_exception_fails_the_job_with_the_sdks_traceback(caller: Caller) -> None:
    job = await caller.runsync(ECHO, {"do": "fail"})
    assert job["status"] == "FAILED"
    error = json.loads(str(job["error"]))
    assert error["error_message"] == "told to fail"
    assert "Traceback" in error["error_traceback"]


async def test_an_error_text_fails_the_job_and_an_error_object_completes_it_without_output(
    caller: Caller,
) -> None:
    failed = await caller.runsync(ECHO, {"do": "return_error", "error": "broken"})
    assert (failed["status"], failed["error"]) == ("FAILED", "broken")
    completed = await caller.runsync(ECHO, {"do": "return_error", "error": {"type": "broken"}})
    assert completed["status"] == "COMPLETED"
    assert not {"output", "error"} & completed.keys()


async def test_an_empty_output_completes_the_job_without_output(caller: Caller) -> None:
    job = await caller.runsync(ECHO, {"do": "return_nothing"})
    assert job["status"] == "COMPLETED"
    assert "output" not in job


async def test_an_empty_input_never_reaches_the_handler_and_fails(caller: Caller) -> None:
    job = await caller.runsync(ECHO, {})
    assert (job["status"], job["error"], job["retries"]) == ("FAILED", "job timed out after 1 retries", 1)


@pytest.mark.parametrize(
    "job_input", [{"do": "return_nan"}, {"do": "return_bytes", "size_bytes": 20_000_001}]
)
async def test_an_output_that_is_no_json_or_too_large_is_lost_and_the_job_runs_into_its_timeout(
    caller: Caller, job_input: JsonObject
) -> None:
    job = await caller.runsync(ECHO, job_input, policy={"executionTimeout": 2000})
    assert (job["status"], job["error"]) == ("FAILED", "executionTimeout exceeded")


async def test_progress_shows_as_the_output_of_a_running_job(caller: Caller, tmp_path: Path) -> None:
    release = tmp_path / "release"
    job_id = await caller.run(ECHO, {"do": "progress", "progress": "half", "release": str(release)})

    async def shown() -> bool:
        job = await caller.status(ECHO, job_id)
        return (job["status"], job.get("output")) == ("IN_PROGRESS", "half")

    await eventually(shown, "progress is shown")
    release.touch()
    assert (await caller.end_of(ECHO, job_id))["output"] == {"finished": True}


async def test_a_failed_job_can_be_retried_under_its_id(caller: Caller, tmp_path: Path) -> None:
    job = await caller.runsync(ECHO, {"do": "return_error", "error": "broken"})
    again = await caller.call("POST", ECHO, f"/retry/{job['id']}")
    assert again.body == {"id": job["id"], "status": "IN_QUEUE"}
    assert (await caller.end_of(ECHO, str(job["id"])))["status"] == "FAILED"
    done = await caller.runsync(ECHO, {"do": "echo"})
    assert (await caller.call("POST", ECHO, f"/retry/{done['id']}")).status == 400


async def test_chunks_of_a_generator_can_be_drained_and_its_output_is_the_list(caller: Caller) -> None:
    job_id = await caller.run("stream", {"chunks": ["a", {"b": 1}, "c"]})
    chunks: list[object] = []
    status = "IN_QUEUE"
    while status in ("IN_QUEUE", "IN_PROGRESS"):
        part = (await caller.call("GET", "stream", f"/stream/{job_id}")).body
        status = str(part["status"])
        assert isinstance(part["stream"], list)
        chunks += [item["output"] for item in part["stream"]]
    assert chunks == ["a", {"b": 1}, "c"] == (await caller.end_of("stream", job_id))["output"]


async def test_an_openai_request_becomes_a_job_and_its_output_the_reply(caller: Caller) -> None:
    body = {"model": "m", "messages": []}
    answer = await caller.call("POST", ECHO, "/openai/v1/chat/completions", body)
    assert answer.body == {"route": "/v1/chat/completions", "input": body}


async def test_an_openai_stream_is_passed_through_as_events(caller: Caller) -> None:
    answer = await caller.call("POST", "stream", "/openai/v1/completions", {"stream": True})
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.raw == b'data: {"route": "/v1/completions"}\n\ndata: {"input": {"stream": true}}\n\n'


async def test_calls_without_the_key_or_to_unknown_things_are_refused(caller: Caller) -> None:
    assert (await caller.call("POST", ECHO, "/run", {"input": {"do": "echo"}}, key="wrong")).status == 401
    assert (await caller.call("GET", ECHO, "/job-take/nobody?gpu=x")).status == 401
    unknown = await caller.call("GET", ECHO, "/status/nothing")
    assert (unknown.status, unknown.body) == (404, {"error": "job not found"})
    assert (await caller.call("GET", ECHO, "/nonsense")).status == 404
    assert (await caller.call("GET", ECHO, "/run")).status == 405
    assert (await caller.call("POST", ECHO, "/run", {})).status == 400


async def test_bodies_are_limited_to_10_mb_for_run_and_20_mb_for_runsync(caller: Caller) -> None:
    large = json.dumps({"input": {"do": "return_nothing", "filler": "x" * 10_000_000}}).encode()
    assert (await caller.call("POST", ECHO, "/run", large)).status == 413
    assert (await caller.call("POST", ECHO, "/runsync", large)).body["status"] == "COMPLETED"
    assert (await caller.call("POST", ECHO, "/runsync", large + large)).status == 413


async def test_a_webhook_is_called_with_the_exact_body_and_the_url_byte_for_byte(
    caller: Caller, receiver: WebhookReceiver
) -> None:
    url = f"{receiver.url}/rpush/inbox:3?_token=a%2Bb=="
    job_input = {"do": "echo", "value": [1, None, "ü"]}
    job_id = await caller.run(ECHO, job_input, webhook=url)
    job = await caller.end_of(ECHO, job_id)
    sent = await eventually(lambda: _all(receiver, 1), "the webhook arrives")
    assert sent[0].body == {
        "delayTime": job["delayTime"],
        "executionTime": job["executionTime"],
        "id": job_id,
        "input": job_input,
        "output": job["output"],
        "status": "COMPLETED",
        "webhook": url,
    }
    assert sent[0].headers["User-Agent"] == "Go-http-client/2.0"
    assert sent[0].headers["Content-Type"] == "application/json"
    assert "Authorization" not in sent[0].headers


async def test_a_failed_jobs_webhook_tells_the_error(caller: Caller, receiver: WebhookReceiver) -> None:
    await caller.run(ECHO, {"do": "return_error", "error": "broken"}, webhook=receiver.url)
    sent = await eventually(lambda: _all(receiver, 1), "the webhook arrives")
    assert (sent[0].body["status"], sent[0].body["error"]) == ("FAILED", "broken")


async def test_a_webhook_is_tried_three_times(caller: Caller, receiver: WebhookReceiver) -> None:
    receiver.answers.extend([500, 302, 503])
    before = caller.cloud.queue.webhooks.counts["failed"]
    await caller.run(ECHO, {"do": "echo"}, webhook=receiver.url)

    async def gave_up() -> bool:
        return caller.cloud.queue.webhooks.counts["failed"] > before

    await eventually(gave_up, "the webhook is given up")
    assert len(receiver.received) == 3


async def test_webhooks_can_be_dropped_and_doubled(caller: Caller, receiver: WebhookReceiver) -> None:
    assert (await caller.control("POST", "/faults", {"drop_webhook": 1})).status == 200
    await caller.runsync(ECHO, {"do": "echo", "value": "dropped"}, webhook=receiver.url)
    await caller.control("POST", "/faults", {"drop_webhook": 0, "double_webhook": 1})
    doubled = await caller.runsync(ECHO, {"do": "echo", "value": "doubled"}, webhook=receiver.url)
    sent = await eventually(lambda: _all(receiver, 2), "both webhooks arrive")
    assert [hook.body["id"] for hook in sent] == [doubled["id"], doubled["id"]]


async def test_held_webhooks_are_sent_on_request_and_the_last_one_first(
    caller: Caller, receiver: WebhookReceiver
) -> None:
    await caller.control("POST", "/faults", {"hold_webhook": {"times": 3}})
    jobs = [await caller.runsync(ECHO, {"do": "echo", "value": n}, webhook=receiver.url) for n in range(3)]
    assert receiver.received == []
    released = await caller.control("POST", "/webhooks/release")
    assert released.body == {"released": 3}
    assert [hook.body["id"] for hook in receiver.received] == [job["id"] for job in reversed(jobs)]
    assert (await caller.control("POST", "/webhooks/release")).body == {"released": 0}


async def test_webhooks_can_be_empty_oversized_and_accompanied_by_a_forged_one(
    caller: Caller, receiver: WebhookReceiver
) -> None:
    for fault in ("empty_webhook", "oversize_webhook", "forge_webhook"):
        await caller.control("POST", "/faults", {fault: {"times": 1}})
        await caller.runsync(ECHO, {"do": "echo"}, webhook=receiver.url)
    hooks = [hook.raw for hook in await eventually(lambda: _all(receiver, 4), "all four arrive")]
    assert hooks.count(b"") == 1
    assert sum(len(raw) > 64 * 1024 for raw in hooks) == 1
    assert sum(b"forged-u1" in raw for raw in hooks) == 1


async def test_run_can_be_cut_before_and_after_a_job_was_made(caller: Caller) -> None:
    before = len(await _jobs(caller))
    for fault, made in (("run_cut_before", 0), ("run_cut_after", 1)):
        await caller.control("POST", "/faults", {fault: {"times": 1}})
        with pytest.raises(aiohttp.ClientError):
            await caller.call("POST", ECHO, "/run", {"input": {"do": "echo"}})
        assert len(await _jobs(caller)) - before == made

    async def ended() -> bool:
        return all(job["status"] == "COMPLETED" for job in (await _jobs(caller))[before:])

    await eventually(ended, "the job whose id nobody learned has run")


async def test_run_can_answer_429_and_500_without_making_a_job(caller: Caller) -> None:
    before = (await caller.call("GET", ECHO, "/health")).body["jobs"]
    await caller.control("POST", "/faults", {"run_429": 1})
    limited = await caller.call("POST", ECHO, "/run", {"input": {"do": "echo"}})
    assert (limited.status, limited.headers["Retry-After"]) == (429, "1")
    await caller.control("POST", "/faults", {"run_429": 0, "run_500": 1})
    assert (await caller.call("POST", ECHO, "/run", {"input": {"do": "echo"}})).status == 500
    assert (await caller.call("GET", ECHO, "/health")).body["jobs"] == before


async def test_an_unknown_fault_is_refused_by_name(caller: Caller) -> None:
    answer = await caller.control("POST", "/faults", {"run_418": 1})
    assert answer.status == 400
    assert "run_418" in str(answer.body["error"])


async def test_stats_count_calls_webhooks_and_jobs_and_can_be_reset(
    caller: Caller, receiver: WebhookReceiver
) -> None:
    await caller.control("POST", "/stats/reset")
    await asyncio.gather(*(caller.runsync(ECHO, {"do": "echo"}, webhook=receiver.url) for _ in range(3)))
    await eventually(lambda: _all(receiver, 3), "the webhooks arrive")
    stats = (await caller.control("GET", "/stats")).body
    calls, jobs, processes = stats["runpod"], stats["jobs"], stats["processes"]
    assert isinstance(calls, dict)
    assert isinstance(jobs, dict)
    assert isinstance(processes, dict)
    assert (calls[ECHO]["runsync"], calls[ECHO]["job-done"]) == (3, 3)
    assert stats["webhooks"] == {"sent": 3, "failed": 0, "dropped": 0}
    assert jobs[ECHO]["COMPLETED"] >= 3
    worker = processes[str((await caller.workers(ECHO))[0]["worker_id"])]
    assert worker["cpu_s"] > 0
    assert worker["peak_rss_bytes"] > 10_000_000


async def _all(receiver: WebhookReceiver, count: int) -> list[Answer]:
    return list(receiver.received) if len(receiver.received) >= count else []


async def _jobs(caller: Caller) -> list[JsonObject]:
    jobs = (await caller.call("GET", ECHO, "/requests")).body["requests"]
    assert isinstance(jobs, list)
    return jobs
