"""The figures that metrics and health are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class ModelFigures:
    """One model. `counters` are totals by name, `minutes` the last ones as {minute: (requests, tokens in, out)};
    `queued_batches` have work to hand out, `waiting` and `running` are shards at its endpoint."""

    model: str
    counters: Mapping[str, int]
    minutes: Mapping[int, tuple[int, int, int]]
    queued_batches: int
    waiting: int
    running: int


@dataclass(frozen=True)
class Figures:
    """`now_s` is Redis time. `latency_le` counts ended batches by upper edge in seconds, cumulatively."""

    now_s: float
    open_batches: int
    ended_batches: int
    latency_sum_s: float
    latency_le: Mapping[int, int]
    models: list[ModelFigures]


@dataclass(frozen=True)
class Breaker:
    """The circuit breaker of an endpoint. `open`: it rests for `resting_ms` more, because it refused jobs or because
    its workers die (`cause`); `half_open`: one shard at a time goes to it, as a probe. `refusals` are in a row,
    `deaths` those of its workers since it last settled a shard."""

    state: Literal["closed", "open", "half_open"]
    cause: Literal["", "refused", "deaths"]
    resting_ms: int
    refusals: int
    deaths: int


class Monitor(Protocol):
    async def figures(self) -> Figures:
        """All figures in one round trip."""

    async def breakers(self) -> Mapping[str, Breaker]:
        """Every configured endpoint's, by its id. Raises StateUnavailable where the store can't be reached."""
