"""All failpoints: each is an act at a moment, named `{act}_{moment}`; two belong to the engine alone."""

from dataclasses import dataclass

from tests.local_cloud.failpoints.moments import MOMENTS

ACTS = {
    "kill": "a process is killed (SIGKILL)",
    "term": "a process is asked to end (SIGTERM), and the call goes on",
    "freeze": "all of a worker's processes are stopped (SIGSTOP)",
    "hang": "a call never returns, while the rest of its process goes on,",
}
ENGINE_ACTS = {
    "engine_dies": "an engine dies of the request that it is handed",
    "out_of_memory": "a request ends with MemoryError in the engine",
}


@dataclass(frozen=True, slots=True)
class Failpoint:
    act: str
    moment: str
    effect: str


FAILPOINTS: dict[str, Failpoint] = {
    **{
        f"{act}_{name}": Failpoint(act, name, f"{text} {moment.text}")
        for name, moment in MOMENTS.items()
        for act, text in ACTS.items()
    },
    **{act: Failpoint(act, "in_engine", text) for act, text in ENGINE_ACTS.items()},
}
