"""A job as the queue keeps it, and the three views others get of it: status object, worker's copy, webhook body."""

from dataclasses import dataclass, field
from enum import StrEnum

JsonObject = dict[str, object]


class JobState(StrEnum):
    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


# What the id of a job of /runsync begins with.
SYNC_ID = "sync-"
LIVE_STATES = frozenset({JobState.IN_QUEUE, JobState.IN_PROGRESS})
RETRYABLE_STATES = frozenset({JobState.FAILED, JobState.TIMED_OUT})
# Whether the platform calls a webhook for a cancelled job is undocumented: none is sent, the harder case for a caller.
WEBHOOK_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Policy:
    """A job's limits in seconds: one run's length, and the life of the job counted from its submission."""

    execution_timeout_s: float = 600.0
    ttl_s: float = 86_400.0
    low_priority: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked body of /run or /runsync."""

    input: JsonObject
    webhook: str | None = None
    policy: Policy = Policy()
    raw_policy: JsonObject | None = None
    s3_config: object = None


@dataclass(slots=True)
class Job:
    """One job. `result` has at most the keys `output` and `error`, exactly those that a worker's reply led to."""

    id: str
    submission: Submission
    sync: bool
    submitted_s: float
    state: JobState = JobState.IN_QUEUE
    worker_id: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    result: JsonObject = field(default_factory=dict)
    requeues: int = 0
    # A worker that runs the job although it was queued again; and whether a fault may befall its run.
    runs_on: str | None = None
    fault_due: bool = False
    # Chunks that no caller has drained yet.
    chunks: list[object] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


def queued_view(job: Job) -> JsonObject:
    """The reply of /run and /retry: it tells how the job begins, even if a worker has taken it in the meantime."""
    return {"id": job.id, "status": JobState.IN_QUEUE.value}


def brief_view(job: Job) -> JsonObject:
    """The reply of /cancel, and of a /runsync that is not over in time."""
    return {"id": job.id, "status": job.state.value}


def status_view(job: Job) -> JsonObject:
    """The job object of /status: times in ms, and `output`, `error`, `retries`, `workerId` where there are any."""
    view: JsonObject = {"id": job.id, "status": job.state.value}
    view.update(_times_ms(job))
    view.update(job.result)
    if job.requeues and job.state in RETRYABLE_STATES:
        view["retries"] = job.requeues
    if job.worker_id is not None:
        view["workerId"] = job.worker_id
    return view


def worker_view(job: Job) -> JsonObject:
    """What a worker is handed."""
    view: JsonObject = {"id": job.id, "input": job.submission.input}
    if job.submission.webhook is not None:
        view["webhook"] = job.submission.webhook
    if job.submission.raw_policy is not None:
        view["policy"] = job.submission.raw_policy
    if job.submission.s3_config is not None:
        view["s3Config"] = job.submission.s3_config
    return view


def webhook_body(job: Job) -> JsonObject:
    """The body of a completion webhook: it echoes the input and the whole webhook URL."""
    times = _times_ms(job)
    body: JsonObject = {"delayTime": times.get("delayTime", 0)}
    if "error" in job.result:
        body["error"] = job.result["error"]
    body["executionTime"] = times.get("executionTime", 0)
    body["id"] = job.id
    body["input"] = job.submission.input
    body["output"] = job.result.get("output")
    body["status"] = job.state.value
    body["webhook"] = job.submission.webhook
    return body


def _times_ms(job: Job) -> JsonObject:
    if job.started_s is None:
        return {}
    times: JsonObject = {"delayTime": round((job.started_s - job.submitted_s) * 1000)}
    if job.ended_s is not None:
        times["executionTime"] = round((job.ended_s - job.started_s) * 1000)
    return times
