"""`python -m tests.local_cloud.storage`: an S3 server on localhost with its bucket made, behind a proxy for faults.

Prints one line of JSON once it answers and runs until SIGTERM, SIGINT or the end of its standard input.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from tests.local_cloud.fault_table import FaultTable
from tests.local_cloud.s3_faults import EFFECTS
from tests.local_cloud.s3_proxy import FaultControl, S3Proxy
from tests.local_cloud.s3_servers import ACCESS_KEY_ID, SECRET_ACCESS_KEY, running_moto, running_rclone
from tests.local_cloud.stdin import watch_stdin

SERVERS = {"moto": running_moto, "rclone": running_rclone}
CHECK_SIGNATURES = ("rclone",)


@dataclass(frozen=True, slots=True)
class Storage:
    """`server` is one of SERVERS."""

    endpoint_url: str
    bucket: str
    server: str
    access_key_id: str = ACCESS_KEY_ID
    secret_access_key: str = SECRET_ACCESS_KEY


@contextmanager
def running_storage(server: str = "moto", bucket: str = "batches") -> Iterator[Storage]:
    """Serves S3 on a free port of 127.0.0.1, without the proxy."""
    with SERVERS[server](bucket) as url:
        yield Storage(url, bucket, server)


async def serve(storage: Storage, seed: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watch_stdin(loop, stop)
    table = FaultTable(EFFECTS, seed)
    proxy = S3Proxy(storage.endpoint_url, table, checks_signatures=storage.server in CHECK_SIGNATURES)
    async with proxy.serving() as url, FaultControl(table).serving() as control_url:
        ready = {**asdict(storage), "endpoint_url": url, "control_url": control_url, "pid": os.getpid()}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    with running_storage(os.environ.get("LOCAL_S3", "moto")) as storage:
        asyncio.run(serve(storage, os.environ.get("LOCAL_SEED", "0")))


if __name__ == "__main__":
    main()
