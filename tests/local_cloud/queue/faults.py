"""The faults of the platform by name. Those of a job concern jobs of /run: only `runsync_524` meets a caller's own."""

from collections.abc import Callable

Fires = Callable[[str], bool]

_CALLS = {
    "run_429": "/run answers 429 with Retry-After: 1, and makes no job",
    "run_429_html": "/run answers 429 as a page of HTML, and makes no job",
    "run_500": "/run answers 500, and makes no job",
    "run_slow": "/run answers after 2 s",
    "run_cut_before": "/run's connection is cut before a job is made",
    "run_cut_after": "/run's connection is cut after the job was made, whose id nobody learns",
    "status_completed": "/status says that a job is COMPLETED that waits or runs",
    "status_failed": "/status says that a job is FAILED that waits or runs",
    "status_404": "/status answers 404 for a job that is there",
    "status_500": "/status answers 500",
    "status_slow": "/status answers after 2 s",
    "runsync_524": "/runsync is cut by the edge with 524: the job goes on, its id is lost",
    "health_empty": "/health says that there are no workers and no jobs",
}
_JOBS = {
    "fail_unstarted_job": "a job that waits ends FAILED instead of reaching a worker",
    "complete_unstarted_job": "a job that waits ends COMPLETED, without output, instead of reaching a worker",
    "forget_queued_job": "a job that waits is forgotten: no worker gets it, /status answers 404",
    "forget_running_job": "a running job is forgotten: /status answers 404, its end is ignored",
    "cancel_running_job": "a running job is stopped in its worker (jobsToStop), and ends CANCELLED",
    "overrun_running_job": "a running job is over its executionTimeout at once",
    "requeue_running_job": "a running job is delivered again, to another worker where there is one",
    "drop_output": "a job ends COMPLETED without the output that its worker posted",
    "result_400": "a worker's result is answered 400, which the SDK never repeats: its job seems to run on",
    "result_500": "a worker's result is answered 500, which the SDK repeats twice",
    "late_progress_overwrites": "progress that arrives after a job's end turns it back to IN_PROGRESS",
    "overrun_times_out": "a run over its executionTimeout ends TIMED_OUT instead of FAILED",
    "lose_ping": "a ping of a worker that runs jobs is lost",
}
_WEBHOOKS = {
    "drop_webhook": "a completion webhook is never sent",
    "double_webhook": "a completion webhook is sent twice",
    "hold_webhook": "a completion webhook is held back until POST /webhooks/release, which sends the last one first",
    "empty_webhook": "a completion webhook's body is empty",
    "oversize_webhook": "a completion webhook's body is larger than 64 KB",
    "forge_webhook": "a forged body goes ahead of a webhook: a false status, another shard or another batch",
}
FAULTS: dict[str, str] = {**_CALLS, **_JOBS, **_WEBHOOKS}


def never(name: str) -> bool:
    """A platform without faults."""
    return False
