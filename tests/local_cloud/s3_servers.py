"""The S3 servers behind the local cloud: moto knows S3's semantics and takes any signature, rclone really checks."""

import re
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer

from tests.local_cloud.failure import failure_of
from tests.local_cloud.tethered import tethered

ACCESS_KEY_ID, SECRET_ACCESS_KEY = "local", "local-secret"
_CREATE_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 20.0
_START_POLL_S = 0.01
_RCLONE_SAYS = re.compile(r"Starting s3 server on \[(http://127\.0\.0\.1:\d+)/\]")


@contextmanager
def running_moto(bucket: str) -> Iterator[str]:
    """The address of a server in threads of this process. Servers of one process share their buckets."""
    # moto binds all interfaces unless it is given an address.
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        with urlopen(Request(f"{url}/{bucket}", method="PUT"), timeout=_CREATE_TIMEOUT_S):
            yield url
    finally:
        server.stop()


@contextmanager
def running_rclone(bucket: str) -> Iterator[str]:
    """The address of a server that serves a folder of its own, as a process that ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="local-s3-"))
    (folder / "data" / bucket).mkdir(parents=True)
    log_path = folder / "rclone.log"
    command = [
        str(Path(sysconfig.get_path("scripts")) / "rclone"),
        *("serve", "s3", str(folder / "data")),
        *("--addr", "127.0.0.1:0"),
        *("--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}"),
        *("--config", str(folder / "rclone.conf")),
        *("--log-file", str(log_path)),
    ]
    with tethered(folder, command):
        yield _address_in(log_path)


def _address_in(log_path: Path) -> str:
    """The address that rclone says it serves: the port is its own choice. Raises StartFailure."""
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if log_path.exists() and (found := _RCLONE_SAYS.search(log_path.read_text(encoding="utf-8"))):
            return found[1]
        time.sleep(_START_POLL_S)
    raise failure_of("rclone", f"did not answer within {_START_TIMEOUT_S:g} s", log_path)
