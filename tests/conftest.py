"""Shared fixtures: one local Upstash for the whole run; an empty database and a clock per test."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from shared.adapters.upstash import Upstash

# Scripts for a deployed service, although pytest's pattern for test files fits their names.
collect_ignore = ["smoke_test.py", "load_test.py"]

# `--hypothesis-profile=thorough`: for a longer look than continuous integration has time for.
settings.register_profile("thorough", max_examples=500, deadline=None)

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class UpstashAddress:
    """Where the local Upstash answers; `token` may do everything."""

    url: str
    token: str


class Clock:
    """Moves the scripts' clock: Redis time plus `offset_ms`. TTLs go on by real time."""

    def __init__(self) -> None:
        self.offset_ms = 0

    def advance_s(self, seconds: float) -> None:
        self.offset_ms += round(1000 * seconds)


@pytest.fixture(scope="session")
def upstash_server() -> Iterator[UpstashAddress]:
    """A process of its own, because every test has an event loop of its own."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.local_cloud.upstash"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    said = json.loads(server.stdout.readline())
    yield UpstashAddress(said["url"], said["token"])
    server.stdin.close()
    server.wait(STOP_TIMEOUT_S)
    server.stdout.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def redis(upstash_server: UpstashAddress, clock: Clock) -> AsyncIterator[Upstash]:
    """The product's own client on an empty database; its scripts' time follows `clock`."""
    client = Upstash(upstash_server.url, upstash_server.token, clock_offset_ms=lambda: clock.offset_ms)
    await client.execute("FLUSHALL")
    yield client
    await client.close()
