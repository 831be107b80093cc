"""The local S3 as a process: it and the server behind it end together, however they are ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.processes import has_ended

WAIT_S = 30.0


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.local_cloud.storage"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LOCAL_S3": "rclone"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["server"] == "rclone"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def behind(process: "subprocess.Popen[bytes]") -> tuple[list[psutil.Process], Path]:
    """All processes behind the service, and the folder that rclone serves."""
    found = psutil.Process(process.pid).children(recursive=True)
    [rclone] = [each for each in found if each.name() == "rclone"]
    return found, Path(rclone.cmdline()[3])


@pytest.mark.parametrize("how", ["killed", "terminated", "abandoned"])
def test_however_it_ends_rclone_and_its_folder_go_with_it(
    process: "subprocess.Popen[bytes]", how: str
) -> None:
    servers, folder = behind(process)
    assert folder.is_dir()
    assert process.stdin is not None
    match how:
        case "killed":
            process.kill()
        case "terminated":
            process.terminate()
        case _:
            process.stdin.close()
    assert process.wait(WAIT_S) == (-9 if how == "killed" else 0)
    deadline_s = time.monotonic() + WAIT_S
    while not all(has_ended(server) for server in servers):
        assert time.monotonic() < deadline_s, f"still there: {servers}"
        time.sleep(0.01)
    assert not folder.exists()
