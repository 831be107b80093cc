"""What the platform answers where a fault makes it: refusals, pages of its edge, lies, cut connections."""

from aiohttp import web

from tests.local_cloud.queue.call import Call, reply, too_many_requests
from tests.local_cloud.queue.job import Job, JobState, status_view
from tests.local_cloud.severed import cut

SLOW_S = 2.0
# As the platform says it of an endpoint without workers and jobs.
NO_WORKERS = ("idle", "initializing", "ready", "running", "throttled", "unhealthy")
NO_JOBS = ("completed", "failed", "inProgress", "inQueue", "retried")


def refused_run(call: Call) -> web.StreamResponse | None:
    """The answer to a /run that makes no job; None where it is not refused."""
    if call.faults.fires("run_429"):
        return too_many_requests()
    if call.faults.fires("run_429_html"):
        return edge_page(429)
    if call.faults.fires("run_500"):
        return reply({"error": "internal server error"}, status=500)
    return cut(call.request) if call.faults.fires("run_cut_before") else None


def false_status(call: Call, job: Job) -> web.StreamResponse | None:
    """A wrong answer about a job of /run that has not ended; None for none."""
    if job.sync or not job.live:
        return None
    if call.faults.fires("status_404"):
        return reply({"error": "job not found"}, status=404)
    if call.faults.fires("status_500"):
        return reply({"error": "internal server error"}, status=500)
    if call.faults.fires("status_completed"):
        return reply({**status_view(job), "status": JobState.COMPLETED.value})
    if call.faults.fires("status_failed"):
        return reply({**status_view(job), "status": JobState.FAILED.value, "error": "unknown error"})
    return None


def empty_health() -> web.StreamResponse:
    return reply({"jobs": dict.fromkeys(NO_JOBS, 0), "workers": dict.fromkeys(NO_WORKERS, 0)})


def edge_page(status: int) -> web.StreamResponse:
    """What the edge in front of the platform answers by itself: HTML."""
    return web.Response(text=f"<html><title>{status}</title></html>", content_type="text/html", status=status)
