"""Which fault befalls which call: rates in windows of virtual time, drawn from the seed, counted by name."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Weather:
    """A fault at a rate from one time to another, in virtual seconds."""

    name: str
    rate: float
    from_s: float
    to_s: float


@dataclass
class Faults:
    """`injected` counts by name."""

    rng: random.Random
    weather: Sequence[Weather] = ()
    injected: Counter[str] = field(default_factory=Counter)

    def draw(self, now_s: float, *names: str) -> str | None:
        """The fault of `names` that befalls a call made now, if any."""
        for item in self.weather:
            if item.name in names and item.from_s <= now_s < item.to_s and self.rng.random() < item.rate:
                self.injected[item.name] += 1
                return item.name
        return None

    def hid_anybody(self) -> bool:
        """Whether somebody was frozen, dead or cut off from Redis for a while."""
        return not self.injected.keys().isdisjoint((*REDIS, *BLOWS))

    def note(self, name: str) -> None:
        self.injected[name] += 1

    @property
    def is_bad_image(self) -> bool:
        """Whether there is a time when engines die of whatever they are given."""
        return any(item.name == "engine_dies" and item.rate >= 1 for item in self.weather)


REDIS = (
    "redis_timeout_before",
    "redis_timeout_after",
    "redis_502",
    "redis_429",
    "redis_noscript",
    "redis_slow",
    "redis_refused",
    "redis_oom",
    "redis_reset_before",
    "redis_reset_after",
)
RUN = ("run_429", "run_429_html", "run_500", "run_cut_before", "run_cut_after", "run_doubled")
STATUS = ("status_404", "status_500", "status_slow", "status_says_completed", "status_says_failed")
JOBS = ("result_refused", "job_stopped", "delivered_twice", "job_vanishes", "job_fails_unstarted")
WEBHOOKS = (
    "webhook_dropped",
    "webhook_doubled",
    "webhook_late",
    "webhook_empty",
    "webhook_forged",
    "webhook_oversized",
)
STORAGE = ("s3_500", "s3_slow_down", "s3_timeout_after_write", "s3_truncated", "s3_missing", "s3_refused")
ENGINE = ("engine_busy", "engine_dies")
RECEIVER = ("receiver_500", "receiver_redirects", "receiver_cut_before", "receiver_cut_after")
RATED = (*REDIS, *RUN, *STATUS, *JOBS, *WEBHOOKS, *STORAGE, *ENGINE, *RECEIVER)
# What befalls a process, at a moment or between two calls.
BLOWS = ("kill", "term", "freeze", "freeze_and_replace", "kill_between_calls")
