"""`python -m tests.local_cloud`: the local cloud as a command; runs until SIGINT or SIGTERM.

Prints one line of JSON on standard output once everything answers; all else goes to standard error and the logs.
"""

import argparse
import asyncio
import json
import os
import signal
import sys

from tests.local_cloud.cloud import LocalCloud
from tests.local_cloud.failure import StartFailure
from tests.local_cloud.settings import BadSetting, parse_settings


async def serve() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    cloud = LocalCloud(parse_settings(os.environ))
    starting = asyncio.create_task(cloud.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    await starting
    try:
        sys.stdout.write(json.dumps(cloud.description()) + "\n")
        sys.stdout.flush()
        await stopping
    finally:
        await cloud.stop()


def main() -> None:
    # It takes no arguments: one that is given is a mistake, and --help must not start a cloud.
    argparse.ArgumentParser(
        prog="./build.sh local",
        description="Runs the service on 127.0.0.1 until SIGINT or SIGTERM; prints its addresses as one line of JSON.",
        epilog="Settings come from the environment: LOCAL_* and SIM_*, listed in README.md.",
    ).parse_args()
    try:
        asyncio.run(serve())
    except (StartFailure, BadSetting) as error:
        sys.exit(f"local cloud: {error}")


if __name__ == "__main__":
    main()
