"""Everything that either side of the state's model holds, in one comparable form, and what must be true of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.adapters import keys
from shared.adapters.redis_monitor import RedisMonitor
from shared.core.lifecycle import BatchPhase, ShardState
from shared.core.sharding import PartPlan
from shared.core.shards import OUTCOMES, BatchRecord, ShardRecord
from shared.ports.monitor import Breaker
from shared.ports.state import Endpoint, ShardRef
from tests.memory_batches import MemoryStore
from tests.properties.frozen_redis import FrozenRedis

AT_RUNPOD = (ShardState.CLAIMED, ShardState.SUBMITTED)
PHASES = list(BatchPhase)
Scores = dict[str, float]


@dataclass(frozen=True)
class Picture:
    """`deleted` are hidden, and their records still there. Queues and leases are by model and endpoint."""

    batches: Mapping[str, BatchRecord]
    deleted: Sequence[str]
    shards: Mapping[str, Mapping[int, ShardRecord]]
    queues: Mapping[str, Scores]
    delayed: Mapping[str, Scores]
    vtimes: Mapping[str, float]
    parts: Mapping[str, Sequence[PartPlan]]
    waiting: Mapping[str, Scores]
    running: Mapping[str, Scores]
    open: Scores
    breakers: Mapping[str, Breaker]


async def picture_of_memory(memory: MemoryStore, endpoints: Sequence[Endpoint]) -> Picture:
    state = memory.state
    models = [endpoint.model for endpoint in endpoints]
    leases = {
        endpoint.id: [
            {keys.lease(ref.batch, ref.shard): float(due) for ref, due in kept.items()}
            for kept in (state.endpoints[endpoint.id].waiting, state.endpoints[endpoint.id].running)
        ]
        for endpoint in endpoints
    }
    return Picture(
        batches={id_: batch.record() for id_, batch in state.batches.items()},
        deleted=sorted(id_ for id_, batch in state.batches.items() if batch.deleted),
        shards={
            id_: {shard.number: shard.record() for shard in batch.shards.values() if shard.handed_out}
            for id_, batch in state.batches.items()
        },
        queues={model: dict(state.queues[model]) for model in models},
        delayed={
            model: {member: float(due) for member, due in state.delayed[model].items()} for model in models
        },
        vtimes={model: state.vtimes[model] for model in models},
        parts={id_: list(batch.new.parts) for id_, batch in state.batches.items()},
        waiting={endpoint: kept[0] for endpoint, kept in leases.items()},
        running={endpoint: kept[1] for endpoint, kept in leases.items()},
        open={id_: float(due) for id_, due in state.open.items()},
        breakers=await memory.breakers(),
    )


async def picture_of_redis(
    redis: FrozenRedis, batch_ids: Sequence[str], endpoints: Sequence[Endpoint]
) -> Picture:
    models, names = [endpoint.model for endpoint in endpoints], [endpoint.id for endpoint in endpoints]
    kinds = (keys.batch, keys.shards, keys.plan)
    hashes = redis.read([["HGETALL", key(id_)] for id_ in batch_ids for key in kinds])
    raws = {id_: hashes[3 * i] for i, id_ in enumerate(batch_ids) if hashes[3 * i]}
    sets = [keys.OPEN, *map(keys.queue, models), *map(keys.delayed, models)]
    sets += [*map(keys.waiting, names), *map(keys.running, names)]
    scores = dict(
        zip(sets, redis.read([["ZRANGE", name, 0, -1, "WITHSCORES"] for name in sets]), strict=True)
    )
    by_name = {
        name: {flat[i]: float(flat[i + 1]) for i in range(0, len(flat), 2)} for name, flat in scores.items()
    }
    vtimes = redis.read([["GET", keys.vtime(model)] for model in models])
    return Picture(
        batches={id_: BatchRecord.parse(id_, raw) for id_, raw in raws.items()},
        deleted=sorted(id_ for id_, raw in raws.items() if "deleted" in raw),
        shards={
            id_: {int(n): ShardRecord.parse(int(n), text) for n, text in hashes[3 * i + 1].items()}
            for i, id_ in enumerate(batch_ids)
            if id_ in raws
        },
        queues={model: by_name[keys.queue(model)] for model in models},
        delayed={model: by_name[keys.delayed(model)] for model in models},
        vtimes={model: float(text or 0) for model, text in zip(models, vtimes, strict=True)},
        parts={id_: _parts(hashes[3 * i + 2]) for i, id_ in enumerate(batch_ids) if id_ in raws},
        waiting={name: by_name[keys.waiting(name)] for name in names},
        running={name: by_name[keys.running(name)] for name in names},
        open=by_name[keys.OPEN],
        breakers=await RedisMonitor(redis, endpoints).breakers(),
    )


def _parts(raw: Mapping[str, str]) -> list[PartPlan]:
    totals = json.loads(raw["totals"])
    parts = [PartPlan.parse(json.loads(raw[str(number)])) for number in range(len(totals))]
    assert [part.requests for part in parts] == totals
    return parts


def check(picture: Picture) -> None:
    """What is true at every moment."""
    for batch_id, batch in picture.batches.items():
        shards = picture.shards[batch_id]
        counts = [*batch.settled.values(), *batch.live.values()]
        assert min(counts) >= 0
        assert sum(counts) <= batch.total
        assert (sum(batch.settled.values()) == batch.total) == (batch.phase is BatchPhase.ENDED)
        assert (batch.phase is BatchPhase.ENDED) == (batch.ended_ms is not None)
        assert (batch_id in picture.open) == (batch.ended_ms is None)
        planned: dict[str, list[int]] = {}
        for share in (share for part in picture.parts[batch_id] for share in part.models):
            planned.setdefault(share.model, []).extend(share.numbers)
        for numbers in planned.values():
            handed = [number for number in numbers if number in shards]
            assert handed == numbers[: len(handed)]
            for number in handed:
                whole = [place for leaf in leaves(shards, number) for place in places(leaf)]
                assert whole == list(range(shards[number].requests))
    check_leases(picture)


def check_reach(memory: MemoryStore) -> None:
    """Whatever is to be handed out is found by a claim, or will be when it is due."""
    state = memory.state
    for batch in state.batches.values():
        if batch.stop or state.clock() >= batch.expires_ms:
            continue
        for model in batch.new.requests_by_model:
            if batch.member in state.queues[model]:
                continue
            assert all(shard.handed_out for shard in batch.shards.values() if shard.model == model)
            if batch.retries[model]:
                first_ms = min(due for _, due in batch.retries[model])
                assert state.delayed[model][batch.member] <= first_ms


def leaves(shards: Mapping[int, ShardRecord], number: int) -> list[ShardRecord]:
    """The shards that stand for `number` now, in order."""
    if shards[number].state is not ShardState.SPLIT:
        return [shards[number]]
    return [leaf for half in shards[number].halves for leaf in leaves(shards, half)]


def places(leaf: ShardRecord) -> range:
    return range(leaf.offset, leaf.offset + leaf.requests)


def check_leases(picture: Picture) -> None:
    """Every shard in flight has its one lease; no other shard of a known batch has any."""
    for kept, states in ((picture.waiting, AT_RUNPOD), (picture.running, (ShardState.RUNNING,))):
        wanted = {
            (shard.endpoint, keys.lease(batch_id, number))
            for batch_id, shards in picture.shards.items()
            for number, shard in shards.items()
            if shard.state in states
        }
        found = {
            (endpoint, lease)
            for endpoint, leases in kept.items()
            for lease in leases
            if lease.rpartition(":")[0] in picture.batches
        }
        assert found == wanted


def check_step(before: Picture, after: Picture) -> None:
    """What no step may undo."""
    for batch_id in before.batches.keys() & after.batches.keys():
        was, now = before.batches[batch_id], after.batches[batch_id]
        assert PHASES.index(was.phase) <= PHASES.index(now.phase)
        assert all(was.settled[outcome] <= now.settled[outcome] for outcome in OUTCOMES)
        assert was.updated_ms <= now.updated_ms
        assert before.shards[batch_id].keys() <= after.shards[batch_id].keys()
        if was.phase is BatchPhase.ENDED:
            assert (now, after.shards[batch_id]) == (was, before.shards[batch_id])


def moves(before: Picture, after: Picture) -> dict[ShardRef, tuple[ShardState, ShardState]]:
    """The shards whose state changed. One that had no record was queued."""
    return {
        ShardRef(batch_id, number): (was, shard.state)
        for batch_id, shards in after.shards.items()
        for number, shard in shards.items()
        for was in [_state(before, batch_id, number)]
        if was is not shard.state
    }


def _state(picture: Picture, batch_id: str, number: int) -> ShardState:
    shard = picture.shards.get(batch_id, {}).get(number)
    return shard.state if shard else ShardState.QUEUED
