"""All batches by the time they were made: pages of those that are there, in both directions.

A token says where the next page begins: `{ms}:{id}` leads to older batches, `+{ms}:{id}` to newer ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from shared.core.shards import BatchRecord
from shared.errors import InvalidRequest

# Batches made in the same millisecond, which a page may have to skip.
TIES_MAX = 64
# The list outlives its batches. So many of those that are gone are passed by one call, and no more.
READS_MAX = 8
PASSED_PER_READ = 500
# Where a first page begins: later than any batch.
FOREVER_MS = 2**53


@dataclass(frozen=True)
class Place:
    at_ms: int
    id: str
    newer: bool = False

    @classmethod
    def parse(cls, token: str) -> Place:
        at_ms, _, batch_id = token.removeprefix("+").partition(":")
        if not at_ms.isdecimal() or not at_ms.isascii() or not batch_id:
            raise InvalidRequest("page: not a token that a list gave", param="page")
        return cls(int(at_ms), batch_id, token.startswith("+"))

    def __str__(self) -> str:
        return f"{'+' if self.newer else ''}{self.at_ms}:{self.id}"

    def leads_to(self, other: Place) -> bool:
        one, two = (self.at_ms, self.id), (other.at_ms, other.id)
        return two > one if self.newer else two < one


async def find_place(redis: Upstash, batch_id: str, *, newer: bool) -> str | None:
    """The token of the page beside a batch; one that was deleted lately has a place, too."""
    score, note = await redis.pipeline([["ZSCORE", keys.BATCHES, batch_id], ["GET", keys.deleted(batch_id)]])
    at_ms = score if score is not None else note
    return None if at_ms is None else str(Place(int(float(at_ms)), batch_id, newer))


async def list_batches(redis: Upstash, limit: int, token: str | None) -> tuple[list[BatchRecord], str | None]:
    """Up to `limit` batches, newest first, and the token of the next page in the same direction."""
    place = Place.parse(token) if token else Place(FOREVER_MS, "")
    found: list[tuple[Place, BatchRecord]] = []
    for read in range(READS_MAX):
        count = PASSED_PER_READ if read else limit + 1
        passed = await _beside(redis, place, count)
        found += await _living(redis, passed)
        if len(passed) < count or len(found) > limit:
            more = str(found[limit - 1][0]) if len(found) > limit else None
            break
        place = passed[-1]
    else:
        more = str(place)
    records = [record for _, record in found[:limit]]
    return records[::-1] if place.newer else records, more


async def _beside(redis: Upstash, place: Place, count: int) -> list[Place]:
    """Up to `count` batches on from a place, whether they are still there or not."""
    order = [place.at_ms, "+inf", "BYSCORE"] if place.newer else [place.at_ms, "-inf", "BYSCORE", "REV"]
    # The client turns the reply into (member, score) pairs by itself.
    pairs: list[tuple[str, float]] = await redis.execute(
        "ZRANGE", keys.BATCHES, *order, "LIMIT", 0, count + TIES_MAX, "WITHSCORES"
    )
    places = [Place(int(score), batch_id, place.newer) for batch_id, score in pairs]
    return [other for other in places if place.leads_to(other)][:count]


async def _living(redis: Upstash, places: Sequence[Place]) -> list[tuple[Place, BatchRecord]]:
    if not places:
        return []
    raws = await redis.pipeline([["HGETALL", keys.batch(place.id)] for place in places])
    return [
        (place, BatchRecord.parse(place.id, raw))
        for place, raw in zip(places, raws, strict=True)
        if raw and "deleted" not in raw
    ]
