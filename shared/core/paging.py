"""Where the n-th request of a batch stands: its part, its model's shard and the place in that. Pages go by this.

A page token is just the index of the page's first request, so it needs nothing stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.core.sharding import ModelPlan, Runs
from shared.errors import InvalidRequest


@dataclass(frozen=True)
class Place:
    shard: int
    offset: int


def part_of(totals: Sequence[int], index: int) -> tuple[int, int]:
    """The part that holds request `index` of a batch whose parts have so many requests each, and its index in there."""
    for part, total in enumerate(totals):
        if index < total:
            return part, index
        index -= total
    raise IndexError("behind the last request")


def places(models: Sequence[ModelPlan], order: Runs, start: int) -> Iterator[Place]:
    """The place of request `start` of a part and of every later one, in request order."""
    skipped = [0] * len(models)
    runs: list[tuple[int, int]] = []
    left = start
    for model, times in order:
        gone = min(left, times)
        left -= gone
        skipped[model] += gone
        if times > gone:
            runs.append((model, times - gone))
    walks = [_walk(plan, skip) for plan, skip in zip(models, skipped, strict=True)]
    for model, times in runs:
        for _ in range(times):
            yield next(walks[model])


def _walk(plan: ModelPlan, skip: int) -> Iterator[Place]:
    """The places of one model's requests, from its `skip`-th on."""
    shard = plan.first
    for size, times in plan.sizes:
        whole = min(times, skip // size)
        shard += whole
        skip -= whole * size
        for _ in range(times - whole):
            for offset in range(skip, size):
                yield Place(shard, offset)
            skip = 0
            shard += 1


def parse_page(token: str | None, total: int) -> int:
    """The index that a page token stands for; 0 for None. Raises InvalidRequest for what no page gave."""
    if token is None:
        return 0
    if not token.isdecimal() or not token.isascii() or len(token) > 12 or not 0 < int(token) < total:
        raise InvalidRequest("page: not a token that a results call gave for this batch", param="page")
    return int(token)
