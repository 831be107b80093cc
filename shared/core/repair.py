"""What to do with a lease that is overdue, or about which a webhook hinted. Pure: facts in, decision out.

Evidence ranks: a fresh beat, then RunPod's /status, then the passing of time. A webhook is never evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from shared.core.lifecycle import ShardState
from shared.core.shards import ShardRecord

OVER = (ShardState.QUEUED, ShardState.SETTLED, ShardState.SPLIT)


class JobState(str, Enum):
    """What RunPod says of a job. GAVE_UP is a failure that its worker reported itself: a platform did not answer, and
    the worker lives. GONE is a 404; UNKNOWN is no usable answer."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    GAVE_UP = "gave up"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Patience:
    """How long each silence is borne, in milliseconds. `recheck_ms` is the lease of a job known to be alive;
    `storage_ms` counts from a lost worker's last beat, while its output can't be looked for."""

    claim_ms: int = 30_000
    beat_stale_ms: int = 30_000
    gone_grace_ms: int = 60_000
    recheck_ms: int = 15_000
    storage_ms: int = 300_000


@dataclass(frozen=True)
class Renew:
    """Nothing is wrong: look again after `after_ms`."""

    after_ms: int


@dataclass(frozen=True)
class AskStatus:
    """Only RunPod can tell: ask /status of the job, then decide with the answer."""


@dataclass(frozen=True)
class Requeue:
    """The attempt is lost. `blame`: a worker died of it, or a job without ever starting it. `cancel`: its job may still
    run; cancel it. `wait`: the next attempt is not made at once."""

    reason: str
    blame: bool
    cancel: bool
    wait: bool


@dataclass(frozen=True)
class Drop:
    """The lease belongs to nothing any more."""


Decision = Renew | AskStatus | Requeue | Drop


def decide(
    shard: ShardRecord | None, now_ms: int, job: JobState | None, patience: Patience, timeout_ms: int
) -> Decision:
    """The step for `shard` at Redis time `now_ms`. `job` is None before /status was asked; `timeout_ms` is the
    executionTimeout its job was given."""
    if shard is None or shard.state in OVER:
        return Drop()
    if shard.state is ShardState.CLAIMED:
        left_ms = shard.since_ms + patience.claim_ms - now_ms
        return (
            Renew(left_ms)
            if left_ms > 0
            else Requeue("its submission was never confirmed", False, False, False)
        )
    if shard.state is ShardState.RUNNING and now_ms - shard.beat_ms < patience.beat_stale_ms:
        return Renew(shard.beat_ms + patience.beat_stale_ms - now_ms)
    if job is None:
        return AskStatus()
    if shard.state is ShardState.SUBMITTED:
        return _submitted(shard, now_ms, job, patience)
    return _silent(shard, now_ms, job, patience, timeout_ms)


def _submitted(shard: ShardRecord, now_ms: int, job: JobState, patience: Patience) -> Decision:
    if job in (JobState.COMPLETED, JobState.FAILED):
        return Requeue(f"its job ended ({job.value}) before a worker started it", True, False, True)
    if job is JobState.GAVE_UP:
        return Requeue("its worker could not start it", False, False, True)
    if job is JobState.GONE and now_ms - shard.since_ms >= patience.gone_grace_ms:
        return Requeue("its job is unknown to RunPod", False, False, False)
    return Renew(patience.recheck_ms)


def _silent(shard: ShardRecord, now_ms: int, job: JobState, patience: Patience, timeout_ms: int) -> Decision:
    """A running shard whose worker stopped beating."""
    if job in (JobState.COMPLETED, JobState.FAILED, JobState.GONE):
        return Requeue(f"its worker fell silent and its job is {job.value}", True, False, True)
    if job is JobState.GAVE_UP:
        return Requeue("its worker could not finish it", False, False, True)
    if now_ms - shard.since_ms >= timeout_ms + patience.gone_grace_ms:
        return Requeue("its worker fell silent past the execution timeout", True, True, True)
    return Renew(patience.recheck_ms)
