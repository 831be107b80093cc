"""`python -m tests.local_cloud.upstash`: serves until SIGTERM, SIGINT or the end of its standard input.

Prints one line of JSON once it answers: `{"url", "token", "pid", "engine_pid"}`. Logs go to standard error.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from dataclasses import asdict

from tests.local_cloud.stdin import watch_stdin
from tests.local_cloud.upstash.engine import find_engine
from tests.local_cloud.upstash.running import running_upstash


async def serve() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watch_stdin(loop, stop)
    async with running_upstash(find_engine(os.environ), os.environ.get("LOCAL_SEED", "0")) as upstash:
        sys.stdout.write(json.dumps({**asdict(upstash), "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve())
