"""The local cloud as a child process, started as its users start it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.local_cloud.cloud import REPOSITORY
from tests.local_cloud.failure import StartFailure

_STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class CloudProcess:
    """`description` is the line of JSON that the command printed."""

    process: asyncio.subprocess.Process
    description: Mapping[str, object]

    def text(self, name: str) -> str:
        return str(self.description[name])


@asynccontextmanager
async def local_cloud_process(env: Mapping[str, str]) -> AsyncIterator[CloudProcess]:
    """`python -m tests.local_cloud` with further variables; ended by SIGTERM. Raises StartFailure."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.local_cloud",
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, **env},
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise StartFailure(f"the local cloud ended with code {await process.wait()}")
        yield CloudProcess(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
