"""What is done with an overdue lease: a fresh beat outranks /status, /status outranks time."""

import pytest

from shared.core.lifecycle import ShardState
from shared.core.repair import AskStatus, Decision, Drop, JobState, Patience, Renew, Requeue, decide
from shared.core.shards import ShardRecord

PATIENCE = Patience(claim_ms=30_000, beat_stale_ms=30_000, gone_grace_ms=60_000, recheck_ms=15_000)
TIMEOUT_MS = 600_000
SINCE_MS = 1_000_000
ENDED = (JobState.COMPLETED, JobState.FAILED)


def after(state: ShardState, age_ms: int, job: JobState | None = None, beat_age_ms: int = 0) -> Decision:
    """The decision `age_ms` after the shard came into `state`."""
    now_ms = SINCE_MS + age_ms
    shard = ShardRecord(0, "mistral", state, 1, 1, 4, "ep", "job", now_ms - beat_age_ms, SINCE_MS)
    return decide(shard, now_ms, job, PATIENCE, TIMEOUT_MS)


def test_a_lease_of_nothing_is_dropped() -> None:
    assert decide(None, 0, None, PATIENCE, TIMEOUT_MS) == Drop()
    for over in (ShardState.SETTLED, ShardState.QUEUED, ShardState.SPLIT):
        assert after(over, 10**9) == Drop()


def test_a_claim_is_waited_for_until_its_deadline_and_nobody_is_blamed() -> None:
    assert after(ShardState.CLAIMED, 29_000) == Renew(1000)
    decision = after(ShardState.CLAIMED, 30_000)
    assert isinstance(decision, Requeue)
    assert (decision.blame, decision.cancel) == (False, False)


@pytest.mark.parametrize("job", [JobState.QUEUED, JobState.RUNNING, JobState.UNKNOWN])
def test_a_submitted_job_that_may_live_is_waited_for_however_long(job: JobState) -> None:
    assert after(ShardState.SUBMITTED, 0) == AskStatus()
    assert after(ShardState.SUBMITTED, 10**9, job) == Renew(15_000)


@pytest.mark.parametrize("job", ENDED)
def test_a_submitted_job_that_ended_unstarted_is_lost(job: JobState) -> None:
    decision = after(ShardState.SUBMITTED, 0, job)
    assert isinstance(decision, Requeue)
    assert job.value in decision.reason


def test_a_submitted_job_unknown_to_runpod_is_lost_after_a_grace() -> None:
    assert after(ShardState.SUBMITTED, 59_000, JobState.GONE) == Renew(15_000)
    decision = after(ShardState.SUBMITTED, 60_000, JobState.GONE)
    assert isinstance(decision, Requeue)
    assert not decision.blame


@pytest.mark.parametrize("job", list(JobState))
def test_a_fresh_beat_outranks_whatever_runpod_says(job: JobState) -> None:
    assert after(ShardState.RUNNING, 10**9, job, beat_age_ms=29_000) == Renew(1000)


@pytest.mark.parametrize("job", [*ENDED, JobState.GONE])
def test_silence_and_a_job_that_ended_is_a_death(job: JobState) -> None:
    assert after(ShardState.RUNNING, 40_000, None, beat_age_ms=30_000) == AskStatus()
    decision = after(ShardState.RUNNING, 40_000, job, beat_age_ms=30_000)
    assert isinstance(decision, Requeue)
    assert (decision.blame, decision.cancel) == (True, False)


@pytest.mark.parametrize("job", [JobState.QUEUED, JobState.RUNNING, JobState.UNKNOWN])
def test_silence_of_a_job_that_may_live_is_borne_until_its_timeout(job: JobState) -> None:
    assert after(ShardState.RUNNING, 659_000, job, beat_age_ms=600_000) == Renew(15_000)
    decision = after(ShardState.RUNNING, 660_000, job, beat_age_ms=600_000)
    assert isinstance(decision, Requeue)
    assert (decision.blame, decision.cancel) == (True, True)


@pytest.mark.parametrize("state", [ShardState.SUBMITTED, ShardState.RUNNING])
def test_a_job_whose_worker_gave_up_is_tried_again_later_and_nobody_is_blamed(state: ShardState) -> None:
    decision = after(state, 40_000, JobState.GAVE_UP, beat_age_ms=30_000)
    assert isinstance(decision, Requeue)
    assert (decision.blame, decision.cancel, decision.wait) == (False, False, True)
