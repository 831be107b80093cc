"""What the state in memory is made of: batches as lists of shards, and endpoints. Every count is a sum."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

from shared.core.lifecycle import BatchPhase, ShardState
from shared.core.shards import OUTCOMES, BatchRecord, ShardRecord
from shared.ports.monitor import Breaker
from shared.ports.state import NewBatch, Outcome, ShardRef, UploadedPart

MAX_SUSPICIONS = 2
BELIEVED_DEATHS = 3
PHASES = list(BatchPhase)


@dataclass
class MemoryShard:
    """`handed_out` is false until its first claim: until then nobody knows of it. `halves` of a split are, from then
    on, what the shard was."""

    number: int
    model: str
    requests: int
    root: int | None = None
    offset: int = 0
    handed_out: bool = False
    state: ShardState = ShardState.QUEUED
    attempt: int = 0
    epoch: int = 0
    endpoint: str = ""
    job: str = ""
    worker: str = ""
    beat_ms: int = 0
    since_ms: int = 0
    losses: int = 0
    suspicions: int = 0
    deaths: int = 0
    alone: bool = False
    halves: tuple[int, ...] = ()
    outcome: str = ""
    error: str = ""
    live: tuple[int, int] = (0, 0)
    result: Outcome | None = None

    @property
    def must_run_alone(self) -> bool:
        return self.root is not None or self.suspicions >= MAX_SUSPICIONS

    def count(self, outcome: str) -> int:
        """How many of its requests were settled so."""
        if self.result:
            return int(getattr(self.result, outcome))
        return self.requests if self.outcome == outcome else 0

    def record(self) -> ShardRecord:
        return ShardRecord(
            self.number,
            self.model,
            self.state,
            self.attempt,
            self.epoch,
            self.requests,
            self.endpoint,
            self.job,
            self.beat_ms,
            self.since_ms,
            self.deaths,
            self.outcome,
            self.error,
            self.losses,
            self.suspicions,
            self.alone,
            self.root,
            self.offset,
            self.halves,
        )


@dataclass
class MemoryBatch:
    """`retries` are (shard, when it may go out again), the next first; `finishes` is each model's virtual time after
    the last shard handed out."""

    new: NewBatch
    arrival: int
    created_ms: int
    updated_ms: int
    shards: dict[int, MemoryShard]
    next_shard: int
    phase: BatchPhase = BatchPhase.COLLECTED
    ended_ms: int | None = None
    stop: Literal["", "canceled", "expired"] = ""
    stop_ms: int | None = None
    deleted: bool = False
    deaths: int = 0
    retries: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    finishes: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def member(self) -> str:
        return f"{self.arrival:015d}:{self.new.id}"

    @property
    def expires_ms(self) -> int:
        return self.created_ms + self.new.expires_in_ms

    @property
    def keep_until_ms(self) -> int:
        return self.expires_ms + self.new.retain_ms

    def settled(self) -> dict[str, int]:
        return {outcome: sum(shard.count(outcome) for shard in self.shards.values()) for outcome in OUTCOMES}

    def advance(self, phase: BatchPhase, now_ms: int) -> None:
        """Phases only ever advance."""
        if PHASES.index(phase) > PHASES.index(self.phase):
            self.phase, self.updated_ms = phase, now_ms

    def set_live(self, shard: MemoryShard, live: tuple[int, int], now_ms: int) -> None:
        if shard.live != live:
            shard.live, self.updated_ms = live, now_ms

    def record(self) -> BatchRecord:
        results = [shard.result for shard in self.shards.values() if shard.result]
        return BatchRecord(
            id=self.new.id,
            stage=self.new.stage,
            phase=self.phase,
            total=self.new.total,
            nonce=self.new.nonce,
            created_ms=self.created_ms,
            updated_ms=self.updated_ms,
            expires_ms=self.expires_ms,
            keep_until_ms=self.keep_until_ms,
            ended_ms=self.ended_ms,
            stop=self.stop,
            stop_ms=self.stop_ms,
            priority=self.new.priority,
            settled=self.settled(),
            live={
                "succeeded": sum(shard.live[0] for shard in self.shards.values()),
                "errored": sum(shard.live[1] for shard in self.shards.values()),
            },
            input_tokens=sum(result.input_tokens for result in results),
            output_tokens=sum(result.output_tokens for result in results),
            gpu_ms=sum(result.gpu_ms for result in results),
            deaths=self.deaths,
            attempts=sum(shard.attempt for shard in self.shards.values()),
            splits=sum(shard.state is ShardState.SPLIT for shard in self.shards.values()),
            models=self.new.requests_by_model,
        )


@dataclass
class MemoryUpload:
    """Each part with the bytes of its body. It is gone at `until_ms`."""

    nonce: str
    options: str
    until_ms: int
    parts: dict[int, tuple[UploadedPart, int]] = field(default_factory=dict)
    made: tuple[str, str] | None = None


@dataclass
class MemoryEndpoint:
    """Leases, the circuit breaker and the window. Whatever is named `_until_ms` is forgotten then."""

    waiting: dict[ShardRef, int] = field(default_factory=dict)
    running: dict[ShardRef, int] = field(default_factory=dict)
    rest_until_ms: int = 0
    rest_cause: str = ""
    refusals: int = 0
    refusals_until_ms: int = 0
    dead: set[str] = field(default_factory=set)
    dead_until_ms: int = 0
    proof_until_ms: int = 0
    capacity: int = 0
    capacity_until_ms: int = 0

    def forget(self, now_ms: int) -> None:
        if now_ms >= self.rest_until_ms:
            self.rest_cause = ""
        if now_ms >= self.refusals_until_ms:
            self.refusals = 0
        if now_ms >= self.dead_until_ms:
            self.dead = set()
        if now_ms >= self.capacity_until_ms:
            self.capacity = 0

    def rest(self, cause: str, rest_ms: int, now_ms: int) -> None:
        self.rest_cause, self.rest_until_ms = cause, now_ms + rest_ms

    def resting_ms(self, now_ms: int) -> int:
        return self.rest_until_ms - now_ms if self.rest_cause else 0

    def is_trusted(self, now_ms: int) -> bool:
        return not self.dead or (len(self.dead) <= BELIEVED_DEATHS and now_ms < self.proof_until_ms)

    def prove(self, until_ms: int) -> None:
        """It settled a shard, or an engine of it answered a canary."""
        self.proof_until_ms, self.dead = until_ms, set()
        if self.rest_cause == "deaths":
            self.rest_cause = ""

    def breaker(self, now_ms: int) -> Breaker:
        trusted, resting_ms = self.is_trusted(now_ms), self.resting_ms(now_ms)
        cause: Literal["", "refused", "deaths"] = "" if trusted else "deaths"
        if trusted and self.refusals:
            cause = "refused"
        if self.rest_cause == "probe":
            resting_ms = 0
        state: Literal["open", "half_open", "closed"] = "open" if resting_ms else "half_open"
        return Breaker(state if cause else "closed", cause, resting_ms, self.refusals, len(self.dead))
