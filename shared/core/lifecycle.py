"""The life of a shard and of a batch, as data.

Theory of operation. A shard is handed out by `claim`, submitted to RunPod, started by a worker and settled. Every
move is one Lua script (`shared/adapters/scripts/`), and these tables say which are legal; a test fires every event
at every state through the real scripts and compares. An event that is not in the table changes nothing and says why.

A shard that nobody has claimed yet has no record at all: a cursor in the batch stands for all of them.
Whatever is lost goes back to `queued`; `settled` is final. A shard whose worker died while it ran alone is `split`: two
new shards stand in its place from then on. An epoch is minted by each `start`, and only its owner may
beat, release or settle: that is the fence against workers that were frozen, replaced and thawed.
"""

from __future__ import annotations

from enum import Enum


class ShardState(str, Enum):
    QUEUED = "queued"
    CLAIMED = "claimed"
    SUBMITTED = "submitted"
    RUNNING = "running"
    SETTLED = "settled"
    SPLIT = "split"


class Event(str, Enum):
    CLAIM = "claim"
    RECORD = "record"
    START = "start"
    BEAT = "beat"
    SETTLE = "settle"
    REQUEUE = "requeue"
    SPLIT = "split"
    STOP = "stop"


_Q, _C, _S, _R, _E, _P = ShardState

# (state, event) -> state. STOP is a cancel or an expiry of the whole batch: a running shard learns of it by its beat.
MOVES: dict[tuple[ShardState, Event], ShardState] = {
    (_Q, Event.CLAIM): _C,
    (_Q, Event.STOP): _E,
    (_C, Event.RECORD): _S,
    (_C, Event.START): _R,
    (_C, Event.REQUEUE): _Q,
    (_C, Event.STOP): _E,
    (_S, Event.START): _R,
    (_S, Event.REQUEUE): _Q,
    (_S, Event.STOP): _E,
    (_R, Event.START): _R,
    (_R, Event.BEAT): _R,
    (_R, Event.SETTLE): _E,
    (_R, Event.REQUEUE): _Q,
    (_R, Event.SPLIT): _P,
    (_R, Event.STOP): _R,
}


def next_state(state: ShardState, event: Event) -> ShardState:
    """Where `event` leads from `state`: the same state where the event is not legal."""
    return MOVES.get((state, event), state)


class BatchPhase(str, Enum):
    """`processing_status`, in the only order in which it changes."""

    COLLECTED = "collected"
    SUBMITTED = "submitted"
    PROCESSING = "processing"
    ENDED = "ended"
