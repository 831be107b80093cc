"""What must hold in the store and at the engine when a run is over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.soak.caller import Caller
from tests.soak.faults import RUN, STATUS, WEBHOOKS
from tests.soak.witness import name_of
from tests.soak.world import World

# A canceled batch's running shards learn of it by their next beat.
LEARN_S = 10.0
IN_FLIGHT_S = 20.0
# Faults that cost a submission or a moment, and never a computation.
COSTLESS = {*RUN, *STATUS, *WEBHOOKS, "job_vanishes", "job_fails_unstarted", "result_refused", "engine_busy"}


def check_store(world: World, callers: Sequence[Caller]) -> None:
    """Every pointer resolves, every payload belongs to a record, no lease is left."""
    known = set()
    for caller in callers:
        batch = _hash(world, f"batch:{caller.id}")
        known.add(batch["nonce"])
        shards = {int(n): json.loads(text) for n, text in _hash(world, f"batch:{caller.id}:shards").items()}
        for number, shard in shards.items():
            if shard["state"] == "settled" and not shard.get("outcome"):
                key = f"payload:{batch['nonce']}:out:{number}:{shard['epoch']}"
                _fail_unless(world, _resolves(world, key), f"{key} is not stored")
            _fail_unless(world, shard["state"] in ("settled", "split"), f"shard {number} is {shard['state']}")
        _check_payloads(world, batch["nonce"], shards)
    for endpoint in world.endpoints:
        for kind in ("waiting", "running"):
            left = world.redis.plain(["ZRANGE", f"inflight:{endpoint}:{kind}", "0", "-1"], world.now_ms)
            _fail_unless(world, not left, f"leases left: {left!r}")
    for key in _keys(world, "payload:*"):
        if key.split(":")[1] not in known:
            ttl = world.redis.plain(["PTTL", key], world.now_ms)
            _fail_unless(world, isinstance(ttl, int) and ttl > 0, f"{key} of no batch lives for ever")


def check_deleted(world: World, caller: Caller, nonce: str) -> None:
    left = [*_keys(world, f"batch:{caller.id}*"), *_keys(world, f"payload:{nonce}:*")]
    _fail_unless(world, not left, f"left after the delete: {left}")
    stored = [key for key in world.bucket.objects if f"/{nonce}/" in key]
    _fail_unless(world, not stored, f"objects left after the delete: {stored}")


def check_work(world: World, caller: Caller, faults_end_s: float) -> tuple[int, int]:
    """(computations, requests) of a batch. None was computed more often than a shard and what it was split into were
    started, none more than once where no fault costs a computation, and none was begun once the batch was known to be
    canceled."""
    shards = {int(n): json.loads(text) for n, text in _hash(world, f"batch:{caller.id}:shards").items()}
    epochs = max((_epochs(shards, number) for number in shards), default=0)
    explained = not COSTLESS.issuperset(world.faults.injected) or world.log.kills > 0
    computed = 0
    for request in caller.plan.requests:
        name = name_of(request["params"]["messages"][0]["content"])  # type: ignore[index]
        times = len(world.log.produced[name])
        computed += times
        _fail_unless(world, times <= epochs, f"{name} was computed {times} times in {epochs} epochs")
        if not explained:
            _fail_unless(world, times <= 1, f"{name} was computed {times} times, and no fault explains it")
        _check_canceled(world, caller, name, faults_end_s)
    return computed, len(caller.plan.requests)


def _epochs(shards: Mapping[int, Mapping[str, Any]], number: int) -> int:
    """How often the requests of a shard may have been begun: with it, and with the halves that hold them."""
    halves = [_epochs(shards, half) for half in shards[number].get("halves", ())]
    return int(shards[number]["epoch"]) + max(halves, default=0)


def _check_canceled(world: World, caller: Caller, name: str, faults_end_s: float) -> None:
    if caller.cancel_answered_s is None:
        return
    # Only who is frozen, or does not reach Redis, may hear of it later.
    is_deaf = world.faults.hid_anybody()
    last_s = max(caller.cancel_answered_s, faults_end_s if is_deaf else 0.0) + LEARN_S
    for what, times in (("begun", world.log.begun_s[name]), ("finished", world.log.done_s[name])):
        late = [at_s for at_s in times if at_s > last_s]
        _fail_unless(world, not late, f"{name} was {what} after the cancel: {late}")


def check_submissions(world: World, caller: Caller) -> None:
    """Nothing of a canceled batch is submitted any more but what was under way."""
    if caller.cancel_answered_s is None:
        return
    for endpoint in world.endpoints.values():
        late = [
            at_s
            for at_s, job_input in endpoint.accepted
            if job_input["batch"] == caller.id and at_s > caller.cancel_answered_s + IN_FLIGHT_S
        ]
        _fail_unless(world, not late, f"{caller.id} was submitted after its cancel: {late}")


def nonce_of(world: World, caller: Caller) -> str:
    return str(_hash(world, f"batch:{caller.id}")["nonce"])


def _check_payloads(world: World, nonce: str, shards: dict[int, dict[str, Any]]) -> None:
    for key in _keys(world, f"payload:{nonce}:out:*"):
        number, epoch = (int(part) for part in key.split(":")[3:])
        known = number in shards and epoch <= shards[number]["epoch"]
        _fail_unless(world, known, f"{key} has no record")


def _resolves(world: World, key: str) -> bool:
    text = world.redis.plain(["GET", key], world.now_ms)
    if not isinstance(text, bytes):
        return False
    return not text.startswith(b"s3:") or text[3:].decode() in world.bucket.objects


def _hash(world: World, key: str) -> dict[str, str]:
    flat = world.redis.plain(["HGETALL", key], world.now_ms)
    assert isinstance(flat, list)
    words = [word.decode() for word in flat if isinstance(word, bytes)]
    return dict(zip(words[::2], words[1::2], strict=True))


def _keys(world: World, pattern: str) -> list[str]:
    found = world.redis.plain(["KEYS", pattern], world.now_ms)
    assert isinstance(found, list)
    return [key.decode() for key in found if isinstance(key, bytes)]


def _fail_unless(world: World, kept: bool, claim: str) -> None:
    if not kept:
        world.violations.append(claim)
