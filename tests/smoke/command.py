"""The command line behind tests/smoke_test.py and tests/load_test.py: reads the settings, runs one mode, exits.

Exit codes: 0 all is well, 1 something is not, 2 the settings are wrong, 130 interrupted.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.smoke.load import measure
from tests.smoke.report import Report
from tests.smoke.run import check_service
from tests.smoke.settings import DEFAULT_FILE, BadSettings, Settings, read_settings
from tests.smoke.verify import verify_platform

# True where all is well.
Mode = Callable[[Settings, Report], Awaitable[bool]]


def run_command(arguments: Sequence[str], *, only: Mode | None = None) -> int:
    """Runs the mode that the arguments name, or `only`; the exit code."""
    parser = argparse.ArgumentParser(prog="./build.sh smoke", description="Tests of a deployed service.")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, help="default: tests/test_config.yaml")
    parser.set_defaults(mode=only or check_service)
    if only is None:
        modes = parser.add_mutually_exclusive_group()
        for flag, mode, text in (
            ("--load", measure, "latency, requests per second and 100 leads against the targets"),
            (
                "--verify-platform",
                verify_platform,
                "what RunPod, Upstash and S3 do, against what the code expects",
            ),
        ):
            modes.add_argument(flag, dest="mode", action="store_const", const=mode, help=text)
    chosen = parser.parse_args(arguments)
    try:
        settings = read_settings(chosen.config, os.environ)
    except BadSettings as faults:
        sys.stderr.write(f"smoke: {faults}\n")
        return 2
    try:
        return 0 if asyncio.run(_until_done(chosen.mode, settings)) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


async def _until_done(mode: Mode, settings: Settings) -> bool:
    # SIGTERM ends a run as Ctrl-C does: through the blocks that remove what it made.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await mode(settings, Report(settings.secrets))
