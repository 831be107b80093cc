"""The operations that the SDK's workers call: job-take, job-take-batch, job-done, job-stream, job-stop, ping."""

from aiohttp import web

from tests.local_cloud.queue.bodies import parse_worker_post
from tests.local_cloud.queue.call import Call, reply
from tests.local_cloud.queue.client_api import Operation
from tests.local_cloud.queue.errors import BadSubmission
from tests.local_cloud.queue.job import SYNC_ID, worker_view


async def job_take(call: Call) -> web.StreamResponse:
    jobs = await call.endpoint.take(call.path[0], 1, call.settings.take_hold_s)
    return reply(worker_view(jobs[0])) if jobs else web.Response(status=204)


async def job_take_batch(call: Call) -> web.StreamResponse:
    text = call.request.query.get("batch_size", "1")
    if not text.isdecimal() or int(text) < 1:
        raise BadSubmission("batch_size must be a positive integer")
    jobs = await call.endpoint.take(call.path[0], int(text), call.settings.take_hold_s)
    return reply([worker_view(job) for job in jobs]) if jobs else web.Response(status=204)


async def job_done(call: Call) -> web.StreamResponse:
    """A job's end, or its progress: one URL for both. A reply that comes too late is answered 200 as well."""
    worker_id, job_id = _worker_and_job(call)
    posted = parse_worker_post(await call.request.read())
    refusal = _refused_result(call, job_id)
    if refusal is not None:
        return refusal
    if posted.get("status") == "IN_PROGRESS":
        call.endpoint.core.report_progress(
            worker_id,
            job_id,
            posted.get("output"),
            overwrite_ended=call.faults.fires("late_progress_overwrites"),
        )
    else:
        call.endpoint.finish(worker_id, job_id, posted)
    return reply({})


async def job_stream(call: Call) -> web.StreamResponse:
    worker_id, job_id = _worker_and_job(call)
    posted = parse_worker_post(await call.request.read())
    call.endpoint.add_chunk(worker_id, job_id, posted.get("output"))
    return reply({})


async def job_stop(call: Call) -> web.StreamResponse:
    stops = await call.endpoint.stops(call.path[0], call.settings.stop_hold_s)
    return reply({"jobsToStop": stops}) if stops else web.Response(status=204)


async def ping(call: Call) -> web.StreamResponse:
    call.endpoint.ping(call.path[0], in_hand=bool(call.request.query.get("job_id")))
    return reply({})


WORKER_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "job-take"): job_take,
    ("GET", "job-take-batch"): job_take_batch,
    ("POST", "job-done"): job_done,
    ("POST", "job-stream"): job_stream,
    ("GET", "job-stop"): job_stop,
    ("GET", "ping"): ping,
}


def _refused_result(call: Call, job_id: str) -> web.StreamResponse | None:
    if job_id.startswith(SYNC_ID):
        return None
    for fault, status in (("result_400", 400), ("result_500", 500)):
        if call.faults.fires(fault):
            return reply({"error": "the result was refused"}, status=status)
    return None


def _worker_and_job(call: Call) -> tuple[str, str]:
    if len(call.path) != 2:
        raise BadSubmission("the path must name a worker and a job")
    return call.path[0], call.path[1]
