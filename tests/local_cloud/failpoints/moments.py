"""The moments that a failpoint may strike at, by name: each lies right before or after a call of a port."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.adapters.payloads import TieredPayloads
from shared.adapters.redis_batches import RedisBatches
from shared.adapters.redis_shards import RedisQueue, RedisRepairs, RedisRuns
from shared.adapters.redis_uploads import RedisUploads
from shared.adapters.runpod_api import RunpodApi
from shared.engines.simulated import SimulatedEngine

Call = Mapping[str, Any]

BATCH_WORKER, MODEL_WORKER = "batch worker", "model worker"
ANYONE = (BATCH_WORKER, MODEL_WORKER)


@dataclass(frozen=True, slots=True)
class Place:
    """A method of the class behind a port. `when` looks at the call's arguments, and after it at its `result` too."""

    owner: type
    method: str
    after: bool
    by: tuple[str, ...] = ANYONE
    when: Callable[[Call], bool] = lambda call: True


@dataclass(frozen=True, slots=True)
class Moment:
    """`text` ends the sentence "the process is killed ..."."""

    text: str
    places: tuple[Place, ...]


def _always(call: Call) -> bool:
    return True


def before(text: str, owner: type, method: str, *by: str, when: Callable[[Call], bool] = _always) -> Moment:
    return Moment(text, (Place(owner, method, after=False, by=by or ANYONE, when=when),))


def after(text: str, owner: type, method: str, *by: str, when: Callable[[Call], bool] = _always) -> Moment:
    return Moment(text, (Place(owner, method, after=True, by=by or ANYONE, when=when),))


def _is_step(step: str) -> Callable[[Call], bool]:
    return lambda call: bool(call["step"] == step)


def _is_output(call: Call) -> bool:
    """Only an adoption reads an output in a model worker, and only a shard's run writes one."""
    keys = call["keys"] if "keys" in call else call["items"]
    return any(":out:" in key for key in keys)


_OF_CREATE_AND_DELETE = {
    "before_commit": before("with a batch's payloads stored, before its commit", RedisBatches, "commit"),
    "after_commit": after("with a batch committed, before anybody is told its id", RedisBatches, "commit"),
    "after_stop": after("with a batch stopped, before its jobs are cancelled", RedisBatches, "stop"),
    "mid_delete": after(
        "with a batch marked as deleted, and nothing removed", RedisBatches, "delete", when=_is_step("mark")
    ),
    "late_delete": before(
        "with a deleted batch's payloads removed, and its records there",
        RedisBatches,
        "delete",
        when=_is_step("finish"),
    ),
    "after_delete": after(
        "with a batch deleted, before anybody is told", RedisBatches, "delete", when=_is_step("finish")
    ),
}
_OF_UPLOADS = {
    "after_reserve": after(
        "with an uploaded part reserved, and nothing of it stored", RedisUploads, "reserve"
    ),
    "before_confirm": before("with an uploaded part stored, before it is confirmed", RedisUploads, "confirm"),
    "after_confirm": after(
        "with an uploaded part confirmed, before anybody is told", RedisUploads, "confirm"
    ),
}
_OF_FEEDING = {
    "after_claim": ("with shards claimed, before any is submitted", RedisQueue, "claim", "claims"),
    "after_run": ("with a job accepted, before its id is recorded", RunpodApi, "run", None),
    "after_record": ("with the ids of jobs recorded", RedisQueue, "record", None),
}
_OF_RUNNING = {
    "before_start": before("with a job in hand, before its shard is started", RedisRuns, "start"),
    "after_start": after("with a shard started, before its input is read", RedisRuns, "start"),
    "in_engine": before("with a request handed to the engine", SimulatedEngine, "generate"),
    "mid_shard": after("with a request of a shard completed", SimulatedEngine, "generate"),
    "after_output": after(
        "with a shard's output stored beside its settle, before that",
        TieredPayloads,
        "put",
        MODEL_WORKER,
        when=_is_output,
    ),
    "after_settle": after(
        "with a shard settled, before the job's end is told", RedisRuns, "settle", MODEL_WORKER
    ),
}
_OF_REPAIR = {
    "after_sweep": after(
        "with hints and overdue leases taken, before any is looked at",
        RedisBatches,
        "sweep",
        when=lambda call: call["result"].work is not None,
    ),
    "before_requeue": before("before a shard is given back", RedisRepairs, "requeue"),
    "after_requeue": after("with a shard given back, before it is fed again", RedisRepairs, "requeue"),
    "mid_adoption": Moment(
        "with a lost worker's output found, before it is settled",
        (
            Place(RedisRuns, "settle", after=False, by=(BATCH_WORKER,)),
            Place(TieredPayloads, "get", after=True, by=(MODEL_WORKER,), when=_is_output),
        ),
    ),
}


def _of_feeding(by: str) -> dict[str, Moment]:
    def has(field: str | None) -> Callable[[Call], bool]:
        return lambda call: field is None or bool(getattr(call["result"], field))

    return {
        name: after(text, owner, method, by, when=has(field))
        for name, (text, owner, method, field) in _OF_FEEDING.items()
    }


MOMENTS: dict[str, Moment] = {
    **_OF_CREATE_AND_DELETE,
    **_OF_UPLOADS,
    **_of_feeding(BATCH_WORKER),
    **{f"{name}_by_model_worker": moment for name, moment in _of_feeding(MODEL_WORKER).items()},
    **_OF_RUNNING,
    **_OF_REPAIR,
}
