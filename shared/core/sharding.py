"""Cuts a part of a batch into shards: slices of its requests for one model, capped by count and by bytes.

A batch that came in one call is one part. Shards are numbered from the part's own first number, the first model's
before the second's, and within a model they keep the request order. So a part is cut without knowledge of any other.
Plans are kept small by run-length coding: equal shards stand as one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from shared.core.cards import ModelCard

Runs = list[tuple[int, int]]

PARTS_MAX = 1000
# More than a part may have, so that every part has numbers of its own; decimal, so that logs can be read.
SHARDS_PER_PART = 1_000_000


@dataclass(frozen=True)
class Routed:
    """One request's place in the plan: its model and the bytes of its stored form."""

    card: ModelCard
    size_bytes: int


@dataclass(frozen=True)
class ModelPlan:
    """One model's share of a part: shards `first` .. `first + shards - 1`. `sizes` are (requests, how often) runs."""

    model: str
    first: int
    shards: int
    requests: int
    sizes: Runs

    @staticmethod
    def parse(raw: Mapping[str, Any]) -> ModelPlan:
        sizes = [(int(size), int(times)) for size, times in raw["sizes"]]
        return ModelPlan(raw["model"], int(raw["first"]), int(raw["shards"]), int(raw["requests"]), sizes)

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.shards)


@dataclass(frozen=True)
class PartPlan:
    """One part of a batch as stored: `requests` of them, over `models`."""

    requests: int
    models: list[ModelPlan]

    @staticmethod
    def parse(raw: Mapping[str, Any]) -> PartPlan:
        return PartPlan(int(raw["requests"]), [ModelPlan.parse(model) for model in raw["models"]])

    def model_of(self, shard: int) -> ModelPlan:
        return next(model for model in self.models if shard in model.numbers)


@dataclass(frozen=True)
class Cut:
    """`order` says which model each request in turn went to, as (model number, how often) runs; `members` are the
    request indices of each shard, by its number."""

    plan: PartPlan
    order: Runs
    members: dict[int, list[int]]


def cut_part(routed: Sequence[Routed], part: int = 0) -> Cut:
    """The shards of part number `part`, for its requests in their order. Every index is in exactly one shard."""
    by_model: dict[str, list[int]] = {}
    for index, item in enumerate(routed):
        by_model.setdefault(item.card.name, []).append(index)
    models: list[ModelPlan] = []
    members: dict[int, list[int]] = {}
    for name, indices in by_model.items():
        shards = _cut(indices, routed)
        sizes = run_lengths([len(shard) for shard in shards])
        first = part * SHARDS_PER_PART + len(members)
        models.append(ModelPlan(name, first, len(shards), len(indices), sizes))
        members.update(enumerate(shards, first))
    numbers = {name: number for number, name in enumerate(by_model)}
    order = run_lengths([numbers[item.card.name] for item in routed])
    return Cut(PartPlan(len(routed), models), order, members)


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
