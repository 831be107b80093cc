"""Figures of one measurement, and how they stand against their targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from tests.smoke.settings import Targets

HEAD = ("what", "requests", "failed", "tokens out", "median s", "p95 s", "req/s", "against the targets")


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank; of at least one value."""
    ordered = sorted(values)
    return ordered[max(0, ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(frozen=True)
class Measured:
    """`latencies_s` and `output_tokens` are of the requests that succeeded; `wall_s` is of all of them together."""

    name: str
    requests: int
    latencies_s: Sequence[float]
    output_tokens: Sequence[int]
    wall_s: float

    @property
    def failed(self) -> int:
        return self.requests - len(self.latencies_s)

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.wall_s if self.wall_s > 0 else 0.0

    def misses(self, targets: Targets, judged: Sequence[str]) -> list[str]:
        """What misses its target; `judged` names the fields of Targets that this measurement is for."""
        if not self.latencies_s:
            return ["nothing succeeded"]
        seen = {
            "median_s": percentile(self.latencies_s, 50),
            "p95_s": percentile(self.latencies_s, 95),
            "requests_per_s": self.per_s,
        }
        misses = [f"{self.failed} failed"] if self.failed else []
        for name in judged:
            target = getattr(targets, name)
            if seen[name] < target if name == "requests_per_s" else seen[name] > target:
                misses.append(f"{name} {seen[name]:.2f}, target {target:g}")
        return misses

    def row(self, verdict: str) -> tuple[str, ...]:
        done = self.latencies_s
        return (
            self.name,
            str(self.requests),
            str(self.failed),
            f"{percentile(self.output_tokens, 50):g}" if self.output_tokens else "-",
            f"{percentile(done, 50):.2f}" if done else "-",
            f"{percentile(done, 95):.2f}" if done else "-",
            f"{self.per_s:.1f}",
            verdict,
        )
