"""Cuts a batch into shards: slices of its requests for one model, capped by count and by bytes. Deterministic.

Shards are numbered from 0, the first model's before the second's, and within a model they keep the request order.
A plan is stored in the batch's hash, so it is kept small by run-length coding: equal shards stand as one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from shared.core.cards import ModelCard

Runs = list[tuple[int, int]]


@dataclass(frozen=True)
class Routed:
    """One request's place in the plan: its model and the bytes of its stored form."""

    card: ModelCard
    size_bytes: int


@dataclass(frozen=True)
class ModelPlan:
    """One model's part of a batch: shards `first` .. `first + shards - 1`. `sizes` are (requests, how often) runs."""

    model: str
    first: int
    shards: int
    requests: int
    sizes: Runs


@dataclass(frozen=True)
class BatchPlan:
    """`models` as stored; `order` says which model each request in turn went to, as (model number, how often) runs;
    `members` are the request indices of each shard."""

    models: list[ModelPlan]
    order: Runs
    members: list[list[int]]


def plan_batch(routed: Sequence[Routed]) -> BatchPlan:
    """The plan for requests in their order. Every index is in exactly one shard."""
    by_model: dict[str, list[int]] = {}
    for index, item in enumerate(routed):
        by_model.setdefault(item.card.name, []).append(index)
    models: list[ModelPlan] = []
    members: list[list[int]] = []
    for name, indices in by_model.items():
        shards = _cut(indices, routed)
        sizes = run_lengths([len(shard) for shard in shards])
        models.append(ModelPlan(name, len(members), len(shards), len(indices), sizes))
        members.extend(shards)
    numbers = {name: number for number, name in enumerate(by_model)}
    order = run_lengths([numbers[item.card.name] for item in routed])
    return BatchPlan(models, order, members)


def _cut(indices: list[int], routed: Sequence[Routed]) -> list[list[int]]:
    card = routed[indices[0]].card
    size = card.shard_size(len(indices))
    shards: list[list[int]] = []
    filled_bytes = 0
    for index in indices:
        size_bytes = routed[index].size_bytes
        if not shards or len(shards[-1]) >= size or filled_bytes + size_bytes > card.shard_bytes:
            shards.append([])
            filled_bytes = 0
        shards[-1].append(index)
        filled_bytes += size_bytes
    return shards


def run_lengths(values: Sequence[int]) -> Runs:
    """`[64, 64, 32]` as `[(64, 2), (32, 1)]`."""
    return [(value, len(list(group))) for value, group in groupby(values)]
