"""The local stand-in for Upstash as a process: it and its engine end together, however they are ended."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from upstash_redis import Redis

from tests.processes import has_ended

REPOSITORY = Path(__file__).parents[2]
WAIT_S = 30.0


@contextmanager
def server_process() -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.local_cloud.upstash"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def wait_until_gone(process: psutil.Process) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not has_ended(process):
        assert time.monotonic() < deadline_s, f"{process} is still there"
        time.sleep(0.01)


def test_it_says_where_it_is_and_what_its_processes_are() -> None:
    with server_process() as (process, ready):
        assert ready["pid"] == process.pid
        assert not has_ended(psutil.Process(ready["engine_pid"]))
        with Redis(ready["url"], ready["token"], rest_retries=0, allow_telemetry=False) as redis:
            assert redis.ping() == "PONG"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_its_engine(number: signal.Signals) -> None:
    with server_process() as (process, ready):
        engine = psutil.Process(ready["engine_pid"])
        process.send_signal(number)
        assert process.wait(WAIT_S) == 0
        wait_until_gone(engine)


def test_the_end_of_its_standard_input_ends_it_with_its_engine() -> None:
    with server_process() as (process, ready):
        engine = psutil.Process(ready["engine_pid"])
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(WAIT_S) == 0
        wait_until_gone(engine)


def test_killed_outright_it_leaves_no_engine_behind() -> None:
    with server_process() as (process, ready):
        engine = psutil.Process(ready["engine_pid"])
        process.kill()
        process.wait(WAIT_S)
        wait_until_gone(engine)
