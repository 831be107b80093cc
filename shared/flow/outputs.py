"""A shard's output as stored: its result lines in input order, and what they add up to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from shared.core import codec
from shared.ports.state import Outcome


@dataclass(frozen=True)
class ShardOutput:
    """`lines` are result lines (core/views.py); `gpu_ms` the engine time that the shard took."""

    lines: list[dict[str, Any]]
    gpu_ms: int

    def encode(self) -> bytes:
        return codec.encode({"lines": self.lines, "gpu_ms": self.gpu_ms})

    @staticmethod
    def parse(data: bytes | None, requests: int) -> ShardOutput | None:
        """The stored output, None where it is missing, broken or not of `requests` lines."""
        if data is None:
            return None
        try:
            raw = codec.decode(data)
            output = ShardOutput(raw["lines"], int(raw["gpu_ms"]))
        except (ValueError, KeyError, TypeError):
            return None
        return output if len(output.lines) == requests else None

    def outcome(self) -> Outcome:
        counts = Counter(line["status"] for line in self.lines)
        usages = [line["usage"] for line in self.lines if line["usage"]]
        return Outcome(
            succeeded=counts["succeeded"],
            errored=counts["errored"],
            canceled=counts["canceled"],
            expired=counts["expired"],
            input_tokens=sum(usage["input_tokens"] for usage in usages),
            output_tokens=sum(usage["output_tokens"] for usage in usages),
            gpu_ms=self.gpu_ms,
            # Only what went to the engine has a latency.
            refused=sum(line["status"] == "errored" and "latency_ms" not in line for line in self.lines),
        )
