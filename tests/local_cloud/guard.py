"""`python -m tests.local_cloud.guard`: kills the process groups it was told of once its standard input ends.

The end of standard input is the end of the parent, however it ended. Workers need this: they read no input, and the
SDK's ping process outlives a worker that is killed. Lines: `add <group id>` and `drop <group id>`.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress


class Guard:
    """The parent's end of a guard process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.local_cloud.guard"],
            stdin=subprocess.PIPE,
            # A session of its own: what ends the parent must not end the guard before it.
            start_new_session=True,
        )

    def add(self, group_id: int) -> None:
        self._tell(f"add {group_id}\n")

    def drop(self, group_id: int) -> None:
        self._tell(f"drop {group_id}\n")

    def close(self) -> None:
        """Kills what is still listed and waits for the guard's end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def kill_group(group_id: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group_id, signal.SIGKILL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        verb, _, group_id = line.partition(" ")
        if verb == "add":
            groups.add(int(group_id))
        else:
            groups.discard(int(group_id))
    for group in groups:
        kill_group(group)


if __name__ == "__main__":
    main()
