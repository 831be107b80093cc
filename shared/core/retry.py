"""When to try again, as functions of numbers. The edges carry the decisions out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Rng = Callable[[], float]


def backoff_s(failures: int, rng: Rng, *, base_s: float = 1.0, cap_s: float = 60.0) -> float:
    """Seconds to wait after the n-th failure in a row (n >= 1): doubling from `base_s` up to `cap_s`, of which a
    random half to whole is taken so that callers spread. `rng` gives 0 <= x < 1."""
    return float(min(cap_s, base_s * 2 ** (min(failures, 30) - 1)) * (0.5 + rng() / 2))


@dataclass(frozen=True)
class RetryAfter:
    wait_s: float


@dataclass(frozen=True)
class GiveUp:
    reason: str


def retry_request(attempt: int, *, retryable: bool, max_attempts: int, rng: Rng) -> RetryAfter | GiveUp:
    """After attempt number `attempt` (>= 1) of one request in the engine failed."""
    if not retryable:
        return GiveUp("the request can't succeed")
    if attempt >= max_attempts:
        return GiveUp(f"failed {attempt} times")
    return RetryAfter(backoff_s(attempt, rng, base_s=0.1, cap_s=5.0))
