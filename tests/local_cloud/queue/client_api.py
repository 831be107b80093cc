"""The REST operations that callers use: run, runsync, status, cancel, retry, stream, health, purge-queue, requests."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.local_cloud.queue.bodies import RUN_BODY_LIMIT_BYTES, SYNC_BODY_LIMIT_BYTES, parse_submission
from tests.local_cloud.queue.call import Call, reply
from tests.local_cloud.queue.errors import BadSubmission
from tests.local_cloud.queue.job import Job, Submission, brief_view, queued_view, status_view
from tests.local_cloud.queue.openai_api import openai
from tests.local_cloud.queue.wrong_answers import (
    SLOW_S,
    edge_page,
    empty_health,
    false_status,
    refused_run,
)
from tests.local_cloud.severed import cut

_WAIT_MS = (1_000, 300_000)
_DEFAULT_WAIT_MS = 90_000

Operation = Callable[[Call], Awaitable[web.StreamResponse]]


async def run(call: Call) -> web.StreamResponse:
    refusal = refused_run(call)
    if refusal is not None:
        return refusal
    job = call.endpoint.submit(await _submission(call, RUN_BODY_LIMIT_BYTES), sync=False)
    if call.faults.fires("run_cut_after"):
        return cut(call.request)
    if call.faults.fires("run_slow"):
        await asyncio.sleep(SLOW_S)
    return reply(queued_view(job))


async def runsync(call: Call) -> web.StreamResponse:
    wait_s = _wait_s(call)
    submission = await _submission(call, SYNC_BODY_LIMIT_BYTES)
    job = call.endpoint.submit(submission, sync=True)
    if call.faults.fires("runsync_524"):
        return edge_page(524)
    return reply(_final_or_brief(await call.endpoint.wait_end(job.id, wait_s)))


async def status(call: Call) -> web.StreamResponse:
    job = call.endpoint.core.get(_job_id(call))
    if not job.sync and call.faults.fires("status_slow"):
        await asyncio.sleep(SLOW_S)
    return false_status(call, job) or reply(status_view(job))


async def status_sync(call: Call) -> web.StreamResponse:
    return reply(status_view(await call.endpoint.wait_end(_job_id(call), _wait_s(call))))


async def cancel(call: Call) -> web.StreamResponse:
    return reply(brief_view(call.endpoint.cancel(_job_id(call))))


async def retry(call: Call) -> web.StreamResponse:
    return reply(queued_view(call.endpoint.retry(_job_id(call))))


async def stream(call: Call) -> web.StreamResponse:
    job, chunks = await call.endpoint.wait_chunks(_job_id(call), call.settings.stream_hold_s)
    return reply({"status": job.state.value, "stream": [{"output": chunk} for chunk in chunks]})


async def health(call: Call) -> web.StreamResponse:
    if call.faults.fires("health_empty"):
        return empty_health()
    return reply(call.endpoint.core.health())


async def purge_queue(call: Call) -> web.StreamResponse:
    return reply({"removed": call.endpoint.purge(), "status": "completed"})


async def requests(call: Call) -> web.StreamResponse:
    return reply({"requests": [status_view(job) for job in call.endpoint.core.jobs()]})


CLIENT_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "run"): run,
    ("POST", "runsync"): runsync,
    ("GET", "status"): status,
    ("GET", "status-sync"): status_sync,
    ("POST", "cancel"): cancel,
    ("POST", "retry"): retry,
    ("GET", "stream"): stream,
    ("GET", "health"): health,
    ("POST", "purge-queue"): purge_queue,
    ("GET", "requests"): requests,
    ("GET", "openai"): openai,
    ("POST", "openai"): openai,
}


async def _submission(call: Call, limit_bytes: int) -> Submission:
    raw = await call.request.read()
    return parse_submission(
        raw, limit_bytes=limit_bytes, min_execution_timeout_ms=call.settings.min_execution_timeout_ms
    )


def _job_id(call: Call) -> str:
    return call.path[0] if call.path else ""


def _wait_s(call: Call) -> float:
    text = call.request.query.get("wait", "")
    if not text:
        return _DEFAULT_WAIT_MS / 1000
    if not text.isdecimal():
        raise BadSubmission("wait must be a number of milliseconds")
    return min(max(int(text), _WAIT_MS[0]), _WAIT_MS[1]) / 1000


def _final_or_brief(job: Job) -> dict[str, object]:
    return brief_view(job) if job.live else status_view(job)
