"""A foreign program as a child that cannot outlive the process that started it, and its folder.

It runs under a small shell that holds the read end of a pipe. However that process ends, SIGKILL included, the pipe
closes, and the shell kills the program and removes its folder. Nothing needs to be saved.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# $0 is the folder, $@ the program's command line.
_GUARD = '"$@" >&2 & echo $!; read -r _; kill -9 $! 2>/dev/null; wait; rm -rf -- "$0"'
_STOP_TIMEOUT_S = 10.0


@contextmanager
def tethered(folder: Path, command: Sequence[str]) -> Iterator[int]:
    """Starts a program; its process id. What it says goes to standard error."""
    # A session of its own: Ctrl-C in a terminal reaches the parent alone, which then stops the program.
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, str(folder), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=_stderr_for_children(),
        start_new_session=True,
    )
    assert guard.stdin is not None
    assert guard.stdout is not None
    try:
        yield int(guard.stdout.readline())
    finally:
        guard.stdin.close()
        guard.wait(_STOP_TIMEOUT_S)
        guard.stdout.close()


def _stderr_for_children() -> int:
    # Not sys.stderr: a test runner may have replaced it by an object without a file descriptor.
    return sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL
