"""Back-off doubles from its base to its cap; a request is tried again only where that can help."""

import pytest

from shared.core.retry import GiveUp, RetryAfter, backoff_s, retry_request


@pytest.mark.parametrize(("failures", "wait_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (10**6, 30.0)])
def test_the_wait_doubles_up_to_its_cap(failures: int, wait_s: float) -> None:
    assert backoff_s(failures, lambda: 0.0) == wait_s


def test_a_random_half_of_it_spreads_the_callers() -> None:
    assert backoff_s(1, lambda: 0.5) == 0.75


def test_a_passing_fault_is_tried_again_up_to_the_last_attempt() -> None:
    decisions = [
        retry_request(attempt, retryable=True, max_attempts=3, rng=lambda: 0.0) for attempt in (1, 2, 3)
    ]
    assert decisions == [RetryAfter(0.05), RetryAfter(0.1), GiveUp("failed 3 times")]


def test_a_request_at_fault_is_given_up_at_once() -> None:
    decision = retry_request(1, retryable=False, max_attempts=3, rng=lambda: 0.0)
    assert decision == GiveUp("the request can't succeed")
