"""A worker for tests of the queue protocol: `python -m tests.contract.echo_worker`, does what its input says.

Input: `{"do": NAME, ...}`; ECHO_CONCURRENCY is how many jobs it takes at once (default 4). On an endpoint called
"stream" it is a generator handler instead, which yields `{"chunks": [...]}` of its input one by one.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import runpod

Job = dict[str, object]
Input = dict[str, object]


async def echo(job: Job, given: Input) -> object:
    return {"echo": given.get("value"), "pid": os.getpid()}


async def describe(job: Job, given: Input) -> object:
    return {"job": {key: value for key, value in job.items() if key != "input"}}


async def environment(job: Job, given: Input) -> object:
    return {"value": os.environ.get(str(given["name"]))}


async def fail(job: Job, given: Input) -> object:
    raise ValueError("told to fail")


async def return_error(job: Job, given: Input) -> object:
    return {"error": given.get("error")}


async def return_nothing(job: Job, given: Input) -> object:
    return {}


async def return_nan(job: Job, given: Input) -> object:
    return {"value": float("nan")}


async def return_bytes(job: Job, given: Input) -> object:
    size_bytes = given["size_bytes"]
    assert isinstance(size_bytes, int)
    return {"text": "x" * size_bytes}


async def wait(job: Job, given: Input) -> object:
    """Marks its start and, if it is cancelled, that too, as lines of the file `marks`."""
    marks, seconds = Path(str(given["marks"])), given.get("seconds", 600)
    assert isinstance(seconds, int | float)
    _mark(marks, f"started {os.getpid()}")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        _mark(marks, "cancelled")
        raise
    return {"waited": seconds}


async def die(job: Job, given: Input) -> object:
    """Kills its process each time it runs, except that `survive_after` runs left their mark already."""
    marks, survive_after = Path(str(given["marks"])), given.get("survive_after", 99)
    assert isinstance(survive_after, int)
    if _mark(marks, str(os.getpid())) <= survive_after:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"survived": True}


async def progress(job: Job, given: Input) -> object:
    """Reports progress and runs until the file `release` is there."""
    runpod.serverless.progress_update(job, given["progress"])
    await asyncio.to_thread(_wait_for, Path(str(given["release"])))
    return {"finished": True}


async def refresh(job: Job, given: Input) -> object:
    return {"pid": os.getpid(), "refresh_worker": True}


ACTIONS: dict[str, Callable[[Job, Input], Awaitable[object]]] = {
    action.__name__: action
    for action in (
        echo,
        describe,
        environment,
        fail,
        return_error,
        return_nothing,
        return_nan,
        return_bytes,
        wait,
        die,
        progress,
        refresh,
    )
}


async def handler(job: Job) -> object:
    given = job["input"]
    assert isinstance(given, dict)
    if "openai_route" in given:
        return [{"route": given["openai_route"], "input": given["openai_input"]}]
    return await ACTIONS[given["do"]](job, given)


async def stream_handler(job: Job) -> AsyncIterator[object]:
    given = job["input"]
    assert isinstance(given, dict)
    for chunk in given.get("chunks") or [{"route": given["openai_route"]}, {"input": given["openai_input"]}]:
        yield chunk


def _mark(path: Path, line: str) -> int:
    """Appends a line; the number of lines there are now."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return len(path.read_text(encoding="utf-8").splitlines())


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


if __name__ == "__main__":
    concurrency = int(os.environ.get("ECHO_CONCURRENCY", "4"))
    streams = os.environ["RUNPOD_ENDPOINT_ID"] == "stream"
    runpod.serverless.start(
        {
            "handler": stream_handler if streams else handler,
            "concurrency_modifier": lambda current: concurrency,
            "return_aggregate_stream": True,
        }
    )
