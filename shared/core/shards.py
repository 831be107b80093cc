"""Stored records, read back tolerantly: a shard's record and a batch's hash, as the scripts write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.core.lifecycle import BatchPhase, ShardState

OUTCOMES = ("succeeded", "errored", "canceled", "expired")


@dataclass(frozen=True)
class ShardRecord:
    """One shard that was handed out. Times are Redis milliseconds. `outcome` is set where it was settled without an
    output: every request of it is canceled, expired or errored (with `error`).

    `losses` are its lost attempts; of these `suspicions` are deaths of its worker in company of other shards, and
    `deaths` those `alone`. The `halves` of a split shard are shards of their own; theirs is the input of shard
    `root`, from request `offset` on (None: their own)."""

    number: int
    model: str
    state: ShardState
    attempt: int
    epoch: int
    requests: int
    endpoint: str = ""
    job: str = ""
    beat_ms: int = 0
    since_ms: int = 0
    deaths: int = 0
    outcome: str = ""
    error: str = ""
    losses: int = 0
    suspicions: int = 0
    alone: bool = False
    root: int | None = None
    offset: int = 0
    halves: tuple[int, ...] = ()

    @staticmethod
    def parse(number: int, text: str) -> ShardRecord:
        raw = json.loads(text)
        return ShardRecord(
            number=number,
            model=raw["model"],
            state=ShardState(raw["state"]),
            attempt=int(raw["attempt"]),
            epoch=int(raw["epoch"]),
            requests=int(raw["requests"]),
            endpoint=raw.get("endpoint", ""),
            job=raw.get("job", ""),
            beat_ms=int(raw.get("beat", 0)),
            since_ms=int(raw.get("since", 0)),
            deaths=int(raw.get("deaths", 0)),
            outcome=raw.get("outcome", ""),
            error=raw.get("error", ""),
            losses=int(raw.get("losses", 0)),
            suspicions=int(raw.get("suspicions", 0)),
            alone=bool(raw.get("alone", False)),
            root=None if raw.get("root") is None else int(raw["root"]),
            offset=int(raw.get("offset", 0)),
            halves=tuple(int(half) for half in raw.get("halves", ())),
        )

    @property
    def input_shard(self) -> int:
        """The shard of the plan whose input holds this one's requests."""
        return self.number if self.root is None else self.root


@dataclass(frozen=True)
class BatchRecord:
    """A batch as stored. `settled` are final counts, `live` those of running epochs beside them; `models` are its
    requests by model. It runs the failed requests of `retry_of` again, where that is set."""

    id: str
    stage: str
    phase: BatchPhase
    total: int
    nonce: str
    created_ms: int
    updated_ms: int
    expires_ms: int
    keep_until_ms: int
    ended_ms: int | None
    stop: str
    stop_ms: int | None
    priority: str
    settled: Mapping[str, int]
    live: Mapping[str, int]
    input_tokens: int
    output_tokens: int
    gpu_ms: int
    deaths: int
    attempts: int
    splits: int
    models: Mapping[str, int] = field(default_factory=dict)
    retry_of: str = ""

    @staticmethod
    def parse(batch_id: str, raw: Mapping[str, str]) -> BatchRecord:
        def number(name: str) -> int:
            return int(float(raw.get(name) or 0))

        prefix = "requests:"
        return BatchRecord(
            id=batch_id,
            stage=raw.get("stage", ""),
            phase=BatchPhase(raw["status"]),
            total=number("total"),
            nonce=raw["nonce"],
            created_ms=number("created_at"),
            updated_ms=number("updated_at"),
            expires_ms=number("expires_at"),
            keep_until_ms=number("keep_until"),
            ended_ms=number("ended_at") or None,
            stop=raw.get("stop", ""),
            stop_ms=number("stop_at") or None,
            priority=raw.get("priority", "normal"),
            settled={name: number(name) for name in OUTCOMES},
            live={name: number(f"live_{name}") for name in OUTCOMES[:2]},
            input_tokens=number("input_tokens"),
            output_tokens=number("output_tokens"),
            gpu_ms=number("gpu_ms"),
            deaths=number("deaths"),
            attempts=number("attempts"),
            splits=number("splits"),
            models={name[len(prefix) :]: number(name) for name in sorted(raw) if name.startswith(prefix)},
            retry_of=raw.get("retry_of", ""),
        )
