"""/openai/v1/...: an OpenAI request becomes a job, and the job's output becomes the OpenAI reply."""

import json
from typing import Any

from aiohttp import web

from tests.local_cloud.queue.bodies import SYNC_BODY_LIMIT_BYTES
from tests.local_cloud.queue.call import Call, reply
from tests.local_cloud.queue.errors import BadSubmission, BodyTooLarge
from tests.local_cloud.queue.job import Job, JobState, Submission
from tests.local_cloud.queue.wrong_answers import edge_page


async def openai(call: Call) -> web.StreamResponse:
    body = await _body(call.request)
    route = "/" + "/".join(call.path)
    job = call.endpoint.submit(Submission({"openai_route": route, "openai_input": body}), sync=True)
    if isinstance(body, dict) and body.get("stream") is True:
        return await _stream(call, job)
    job = await call.endpoint.wait_end(job.id, call.settings.openai_hold_s)
    if job.live:
        # What the edge does with a reply that takes too long; the job runs on.
        return edge_page(524)
    if job.state is not JobState.COMPLETED:
        return _failure(job)
    output = job.result.get("output")
    # A generator handler's output is the list of its chunks: a reply that is not streamed has one.
    return reply(output[0] if isinstance(output, list) and len(output) == 1 else output)


async def _body(request: web.Request) -> object:
    raw = await request.read()
    if len(raw) > SYNC_BODY_LIMIT_BYTES:
        raise BodyTooLarge(f"request body is {len(raw)} bytes, the limit is {SYNC_BODY_LIMIT_BYTES}")
    try:
        return json.loads(raw) if raw else {}
    except ValueError as error:
        raise BadSubmission(f"request body is not JSON: {error}") from error


async def _stream(call: Call, job: Job) -> web.StreamResponse:
    job, chunks = await call.endpoint.wait_chunks(job.id, call.settings.openai_hold_s)
    if not chunks and not job.live and job.state is not JobState.COMPLETED:
        return _failure(job)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(call.request)
    while chunks:
        for chunk in chunks:
            await response.write(_event(chunk))
        job, chunks = await call.endpoint.wait_chunks(job.id, call.settings.openai_hold_s)
    if not job.live and job.state is not JobState.COMPLETED:
        await response.write(_event(_error_body(job)))
    await response.write_eof()
    return response


def _event(chunk: object) -> bytes:
    """Text is what the worker says: whole server-sent events, or parts of them."""
    text = chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    return text.encode()


def _failure(job: Job) -> web.StreamResponse:
    """The reply for a failed job.

    Undocumented: callers report 500 for a failed job, and 200 for a job that completes with an error body. That an
    OpenAI error body passes through with its own code is an assumption.
    """
    body = _error_body(job)
    code = body["error"].get("code", body.get("status_code"))
    return reply(body, status=code if isinstance(code, int) and 400 <= code <= 599 else 500)


def _error_body(job: Job) -> dict[str, Any]:
    text = str(job.result.get("error", job.state.value))
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return body
    return {"error": {"message": text}}
