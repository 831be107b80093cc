"""The demo behind ./build.sh demo: starts the local cloud, runs the Node adapter's example against it, stops both.

Its exit code is the example's. `--engine vllm` runs it on real engines; all other arguments go to the example.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.local_cloud.settings import VLLM_START_TIMEOUT_S
from tests.vllm.local import are_tiny, real_engines

ROOT = Path(__file__).resolve().parent.parent
# From the root: the example names its results by the folder it is given.
EXAMPLE = [
    *("node", "node-adapter/dist-examples/demo.js"),
    *("--leads", "node-adapter/examples/leads.jsonl"),
    *("--prices", "runpod/prices.json"),
    *("--out", "out"),
]
TINY_NOTE = (
    "Real engines on tiny models with random weights: the texts mean nothing, nor do their times and costs."
)
# Longer than the local cloud itself waits for its parts: its own message says more than ours.
START_S = 90.0
VLLM_START_S = VLLM_START_TIMEOUT_S + 30.0
STOP_S = 20.0


class CloudDidNotStart(Exception):
    """The local cloud ended, or said nothing in START_S, before it printed its addresses."""


@asynccontextmanager
async def stopped_afterwards(process: Process) -> AsyncIterator[Process]:
    """A child that is gone when the block ends: asked by SIGTERM first, killed after STOP_S."""
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()


async def read_addresses(cloud: Process, start_s: float) -> Mapping[str, str]:
    """The line of JSON that the local cloud prints once everything answers."""
    assert cloud.stdout is not None
    try:
        line = await asyncio.wait_for(cloud.stdout.readline(), start_s)
    except asyncio.TimeoutError:
        raise CloudDidNotStart(f"it said nothing for {start_s:.0f} s") from None
    if not line:
        raise CloudDidNotStart(f"it ended with exit code {await cloud.wait()}")
    addresses: Mapping[str, str] = json.loads(line)
    return addresses


async def demonstrate(arguments: list[str]) -> int:
    """Runs the example on a fresh local cloud; its exit code."""
    parser = argparse.ArgumentParser(prog="./build.sh demo", add_help=False, allow_abbrev=False)
    parser.add_argument("--engine", choices=("simulated", "vllm"), default="simulated")
    chosen, arguments = parser.parse_known_args(arguments)
    real = chosen.engine == "vllm"
    # SIGTERM ends the demo as Ctrl-C does: through the blocks that stop the children.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)

    command = [sys.executable, "-m", "tests.local_cloud"]
    cloud_env = {**os.environ, **(real_engines(os.environ) if real else {})}
    cloud = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=cloud_env, stdin=PIPE, stdout=PIPE)
    async with stopped_afterwards(cloud):
        addresses = await read_addresses(cloud, VLLM_START_S if real else START_S)
        environment = {
            **os.environ,
            "LOCAL_BATCH_URL": addresses["batch_url"],
            "RUNPOD_API_KEY": addresses["api_key"],
        }
        label = [] if real else ["--simulated"]
        example = await asyncio.create_subprocess_exec(
            *EXAMPLE, *label, *arguments, cwd=ROOT, env=environment
        )
        async with stopped_afterwards(example):
            code = await example.wait()
    if real and are_tiny(os.environ):
        print(TINY_NOTE)
    return code


def main() -> int:
    try:
        return asyncio.run(demonstrate(sys.argv[1:]))
    except CloudDidNotStart as reason:
        print(f"demo: the local cloud did not start: {reason}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
