"""Starts the stand-ins for Upstash and S3 as processes, and makes the webhook token as a deployment does."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from shared.adapters.keys import INBOXES
from tests.local_cloud.failure import StartFailure, failure_of
from tests.local_cloud.guard import kill_group

_STOP_TIMEOUT_S = 5.0


class Service:
    """A module that prints one line of JSON when it is ready (`ready`) and ends with its standard input."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, ready: Mapping[str, str]) -> None:
        self.name = name
        self.ready = ready
        self.pid = process.pid
        self._process = process

    async def stop(self) -> None:
        await _end(self._process)


async def start_service(
    name: str, module: str, log_dir: Path, timeout_s: float, env: Mapping[str, str]
) -> Service:
    """Starts a module, with further variables, and waits for its line; raises StartFailure."""
    log_path = log_dir / f"{name}.log"
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, **env},
            # Ctrl-C in a terminal reaches the supervisor alone, which stops everything in order.
            start_new_session=True,
        )
    try:
        return Service(name, process, await _ready_line(name, process, log_path, timeout_s))
    except BaseException:
        await _end(process)
        raise


async def _ready_line(
    name: str, process: asyncio.subprocess.Process, log_path: Path, timeout_s: float
) -> Mapping[str, str]:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), timeout_s)
    except TimeoutError as error:
        raise failure_of(name, f"did not answer within {timeout_s:g} s", log_path) from error
    if not line:
        raise failure_of(name, "ended while it started", log_path)
    ready: Mapping[str, str] = json.loads(line)
    return ready


async def make_webhook_token(redis_url: str, redis_token: str) -> str:
    """A REST token of Upstash that can only append to the inboxes."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {redis_token}"}) as session:
        token = await _command(session, redis_url, "ACL", "GENTOKEN", "inbox")
        rules = ("reset", "on", f">{token}", *(f"~{inbox}" for inbox in INBOXES), "+rpush")
        await _command(session, redis_url, "ACL", "SETUSER", "inbox", *rules)
    return token


async def _command(session: aiohttp.ClientSession, url: str, *command: str) -> str:
    async with session.post(url, json=command) as reply:
        answer = await reply.json()
    if "error" in answer:
        raise StartFailure(f"redis refused {' '.join(command[:2])}: {answer['error']}")
    return str(answer["result"])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        kill_group(process.pid)
        await process.wait()
