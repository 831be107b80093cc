"""The real state and the one in memory, called alike and compared after every call."""

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from enum import Enum
from typing import Any, Protocol, TypeVar

from hypothesis import event

from shared.core.lifecycle import Event, ShardState, next_state
from shared.ports.state import Batches, Queue, Repairs, Runs, Uploads
from tests.contract.state import ENDPOINTS, TIMING, Store
from tests.memory_batches import MemoryStore
from tests.properties.frozen_redis import FrozenRedis
from tests.properties.pictures import (
    Picture,
    check,
    check_reach,
    check_step,
    moves,
    picture_of_memory,
    picture_of_redis,
)

T = TypeVar("T")
TICK_MS = 1000
seen_so_far = Counter[str]()


def happened(what: str) -> None:
    """For the statistics, and for a test that enough did."""
    event(what)
    seen_so_far[what] += 1


class Repeat(Enum):
    """RESENT: the same call again after its reply was lost. AGAIN: another call that says the same."""

    ONCE = "once"
    RESENT = "resent"
    AGAIN = "again"


class Ports(Protocol):
    @property
    def batches(self) -> Batches: ...
    @property
    def uploads(self) -> Uploads: ...
    @property
    def queue(self) -> Queue: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def repairs(self) -> Repairs: ...


class Pair:
    """`jitter` is what both take for randomness. The real state is emptied first."""

    def __init__(self, redis: FrozenRedis, jitter: float) -> None:
        redis.empty()
        self.redis = redis
        self.real = Store(redis, TICK_MS)
        self.memory = MemoryStore(ENDPOINTS, TIMING, TICK_MS, lambda: redis.now_ms, lambda: jitter)
        self.batch_ids: list[str] = []
        self.picture = self._compare()

    def call(
        self,
        step: Callable[[Ports], Coroutine[Any, Any, T]],
        events: Collection[Event] = (),
        repeat: Repeat = Repeat.ONCE,
    ) -> T:
        """The answer that both gave. `events` are those that the call may fire at shards."""
        answer = self._call(step, events, resend=repeat is Repeat.RESENT)
        if repeat is Repeat.AGAIN:
            self._call(step, events, resend=False)
        return answer

    def _call(
        self, step: Callable[[Ports], Coroutine[Any, Any, T]], events: Collection[Event], *, resend: bool
    ) -> T:
        wanted = done(step(self.memory))
        self.redis.resend = resend
        found = done(step(self.real))
        self.redis.resend = False
        assert found == wanted
        while self.redis.resent:
            name, first, again = self.redis.resent.pop()
            happened(f"resent: {name}")
            check_alike(name, first, again)
        self._look(events)
        return found

    def advance(self, by_ms: int) -> None:
        self.redis.advance(by_ms)
        self.memory.state.forget()
        before = self.picture
        self._look(())
        if before.batches.keys() - self.picture.batches.keys():
            happened("kept no longer")

    def _look(self, events: Collection[Event]) -> None:
        before, self.picture = self.picture, self._compare()
        check(self.picture)
        check_reach(self.memory)
        check_step(before, self.picture)
        for was, now in moves(before, self.picture).values():
            assert now in {*(next_state(was, event) for event in events), *_lost(was, events)}

    def _compare(self) -> Picture:
        found = done(picture_of_redis(self.redis, self.batch_ids, ENDPOINTS))
        assert found == done(picture_of_memory(self.memory, ENDPOINTS))
        return found


def _lost(was: ShardState, events: Collection[Event]) -> Sequence[ShardState]:
    """In a stopped batch, and after one death too many, what gives a shard back settles it."""
    is_over = was in (ShardState.QUEUED, ShardState.SETTLED, ShardState.SPLIT)
    return [] if is_over or Event.REQUEUE not in events else [ShardState.SETTLED]


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """The value of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waits")


def check_alike(name: str, first: Any, again: Any) -> None:
    """Both answers lead the caller to the same."""
    match name:
        case "commit":
            # With a key, a resend finds the batch that the key made.
            assert again["id"] == first["id"]
            assert {first["verdict"], again["verdict"]} <= {"created", "existing"} or again == first
        case "start":
            assert again == first or "run" not in (first["verdict"], again["verdict"])
        case "requeue":
            assert again == first or again["verdict"] == "changed"
        case "stop":
            # Cancelling jobs at RunPod is best effort.
            assert again["verdict"] == first["verdict"]
        case _:
            assert again == first
