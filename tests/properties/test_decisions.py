"""Decisions are total: whatever the facts, repair and retry have an answer, and never a harmful one."""

from hypothesis import given
from hypothesis import strategies as st

from shared.core.lifecycle import ShardState
from shared.core.repair import AskStatus, Drop, JobState, Patience, Renew, Requeue, decide
from shared.core.retry import GiveUp, RetryAfter, backoff_s, retry_request
from shared.core.shards import ShardRecord

PATIENCE = Patience()
TIMEOUT_MS = 600_000
times_ms = st.integers(0, 10**13)
jobs = st.one_of(st.none(), st.sampled_from(JobState))
fractions = st.floats(0, 1, exclude_max=True)


@st.composite
def shards(draw: st.DrawFn) -> ShardRecord:
    return ShardRecord(
        number=draw(st.integers(0, 10**6)),
        model="mistral",
        state=draw(st.sampled_from(ShardState)),
        attempt=draw(st.integers(0, 100)),
        epoch=draw(st.integers(0, 100)),
        requests=draw(st.integers(1, 1000)),
        job=draw(st.sampled_from(["", "job"])),
        beat_ms=draw(times_ms),
        since_ms=draw(times_ms),
        deaths=draw(st.integers(0, 10)),
    )


@given(st.one_of(st.none(), shards()), times_ms, jobs)
def test_every_lease_has_a_decision(shard: ShardRecord | None, now_ms: int, job: JobState | None) -> None:
    decision = decide(shard, now_ms, job, PATIENCE, TIMEOUT_MS)
    assert isinstance(decision, Renew | AskStatus | Requeue | Drop)
    if isinstance(decision, Renew):
        assert decision.after_ms > 0
    if isinstance(decision, AskStatus):
        assert job is None


@given(shards(), times_ms, st.sampled_from(JobState))
def test_an_answer_of_runpod_is_the_last_question(shard: ShardRecord, now_ms: int, job: JobState) -> None:
    assert not isinstance(decide(shard, now_ms, job, PATIENCE, TIMEOUT_MS), AskStatus)


@given(shards(), st.integers(0, PATIENCE.beat_stale_ms - 1), jobs)
def test_a_fresh_beat_is_never_requeued(shard: ShardRecord, age_ms: int, job: JobState | None) -> None:
    decision = decide(shard, shard.beat_ms + age_ms, job, PATIENCE, TIMEOUT_MS)
    if shard.state is ShardState.RUNNING:
        assert decision == Renew(PATIENCE.beat_stale_ms - age_ms)


@given(shards(), times_ms, jobs)
def test_what_is_settled_or_queued_or_split_is_always_dropped(
    shard: ShardRecord, now_ms: int, job: JobState | None
) -> None:
    decision = decide(shard, now_ms, job, PATIENCE, TIMEOUT_MS)
    idle = shard.state in (ShardState.SETTLED, ShardState.QUEUED, ShardState.SPLIT)
    assert isinstance(decision, Drop) == idle


@given(shards(), times_ms, st.sampled_from([JobState.QUEUED, JobState.RUNNING, JobState.UNKNOWN]))
def test_a_job_that_may_live_is_given_up_only_past_its_timeout_and_cancelled_then(
    shard: ShardRecord, now_ms: int, job: JobState
) -> None:
    decision = decide(shard, now_ms, job, PATIENCE, TIMEOUT_MS)
    if isinstance(decision, Requeue) and shard.state is not ShardState.CLAIMED:
        assert shard.state is ShardState.RUNNING
        assert now_ms - shard.since_ms >= TIMEOUT_MS
        assert decision.cancel


@given(st.integers(1, 10**6), fractions, st.floats(0.01, 100), st.floats(0.01, 10_000))
def test_a_backoff_is_half_to_whole_of_the_doubled_base_up_to_its_cap(
    failures: int, fraction: float, base_s: float, cap_s: float
) -> None:
    wait_s = backoff_s(failures, lambda: fraction, base_s=base_s, cap_s=cap_s)
    whole_s = min(cap_s, base_s * 2 ** min(failures - 1, 29))
    assert whole_s / 2 <= wait_s <= whole_s


@given(st.integers(1, 50), st.booleans(), st.integers(1, 10), fractions)
def test_a_request_is_retried_only_for_passing_faults_and_not_for_ever(
    attempt: int, retryable: bool, max_attempts: int, fraction: float
) -> None:
    decision = retry_request(attempt, retryable=retryable, max_attempts=max_attempts, rng=lambda: fraction)
    assert isinstance(decision, RetryAfter) == (retryable and attempt < max_attempts)
    if isinstance(decision, RetryAfter):
        assert 0.05 <= decision.wait_s <= 5
    if isinstance(decision, GiveUp):
        assert decision.reason
