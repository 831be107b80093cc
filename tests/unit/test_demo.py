"""The demo's runner: it finds the local cloud's addresses, and leaves no process behind."""

import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec

import pytest

from tests import demo

START_S = 30.0


async def child(code: str) -> Process:
    return await create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)


async def test_the_addresses_are_the_line_the_cloud_prints_while_it_goes_on() -> None:
    cloud = await child('import signal; print(\'{"api_key": "k"}\', flush=True); signal.pause()')
    async with demo.stopped_afterwards(cloud):
        assert await demo.read_addresses(cloud, START_S) == {"api_key": "k"}
        assert cloud.returncode is None
    assert cloud.returncode is not None


async def test_a_cloud_that_ends_at_once_is_reported_with_its_exit_code() -> None:
    cloud = await child("raise SystemExit(7)")
    with pytest.raises(demo.CloudDidNotStart, match="exit code 7"):
        await demo.read_addresses(cloud, START_S)


async def test_a_silent_cloud_is_given_up() -> None:
    cloud = await child("import signal; signal.pause()")
    async with demo.stopped_afterwards(cloud):
        with pytest.raises(demo.CloudDidNotStart, match="said nothing"):
            await demo.read_addresses(cloud, start_s=0.1)


async def test_a_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STOP_S", 0.1)
    stubborn = await child(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True)\n"
        "while True: signal.pause()"
    )
    async with demo.stopped_afterwards(stubborn):
        await demo.read_addresses(stubborn, START_S)
    assert stubborn.returncode == -9
