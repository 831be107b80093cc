"""`python -m tests.local_cloud`: one line, a clean end, and no process left behind however it ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.contract.echo_cloud import ECHO_MODULE, eventually
from tests.local_cloud.cloud import REPOSITORY
from tests.local_cloud.command import local_cloud_process
from tests.processes import has_ended

ONE_WORKER = {"LOCAL_WORKERS": "batch-api=1,mistral=0,llama=0", "LOCAL_HANDLERS": f"batch-api={ECHO_MODULE}"}
FIELDS = {
    "batch_url",
    "endpoints",
    "api_key",
    "redis_url",
    "redis_token",
    "s3_endpoint_url",
    "s3_bucket",
    "control_url",
    "log_dir",
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_everything_answers_and_nothing_is_left_after_the_end(number: int, tmp_path: Path) -> None:
    env = {**ONE_WORKER, "LOCAL_LOG_DIR": str(tmp_path)}
    async with local_cloud_process(env) as cloud, aiohttp.ClientSession() as session:
        assert cloud.description.keys() == FIELDS
        headers = {"Authorization": f"Bearer {cloud.text('api_key')}"}
        body = {"input": {"do": "echo", "value": 1}}
        async with session.post(f"{cloud.text('batch_url')}/runsync", json=body, headers=headers) as reply:
            assert (await reply.json())["output"]["echo"] == 1
        assert await _ping_redis(session, cloud.text("redis_url"), cloud.text("redis_token")) == "PONG"
        async with session.get(f"{cloud.text('s3_endpoint_url')}/{cloud.text('s3_bucket')}") as reply:
            assert reply.status == 200
        async with session.get(f"{cloud.text('control_url')}/stats") as reply:
            processes = (await reply.json())["processes"]
        assert {"local-cloud", "redis-rest", "redis-engine", "s3"} < processes.keys()
        family = psutil.Process(cloud.process.pid).children(recursive=True)
        assert len(family) >= 6
        os.kill(cloud.process.pid, number)
        code = await cloud.process.wait()
        assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)

        async def all_gone() -> bool:
            return all(has_ended(process) for process in family)

        await eventually(all_gone, "all children end")
    assert (tmp_path / "batch-api-1.log").read_text(encoding="utf-8").startswith("=== worker batch-api-")


async def test_the_webhook_token_can_append_to_an_inbox_and_nothing_else(tmp_path: Path) -> None:
    env = {**ONE_WORKER, "LOCAL_LOG_DIR": str(tmp_path)}
    async with local_cloud_process(env) as cloud, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {cloud.text('api_key')}"}
        body = {"input": {"do": "environment", "name": "WEBHOOK_TOKEN"}}
        async with session.post(f"{cloud.text('batch_url')}/runsync", json=body, headers=headers) as reply:
            token = (await reply.json())["output"]["value"]
        url = cloud.text("redis_url")
        for path, status in (("rpush/inbox:3", 200), ("rpush/other", 400), ("lrange/inbox:3/0/-1", 400)):
            async with session.post(f"{url}/{path}?_token={token}", data=b'{"id": 1}') as reply:
                assert reply.status == status, path


async def test_a_worker_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.local_cloud",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "LOCAL_HANDLERS": "mistral=tests.no_such_worker", "LOCAL_LOG_DIR": str(tmp_path)}
        | {"LOCAL_WORKERS": "batch-api=0,mistral=1,llama=0"},
    )
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (1, b"")
    assert b"local cloud: worker of mistral (tests.no_such_worker) ended with code 1" in stderr
    assert b"No module named tests.no_such_worker" in stderr


async def _ping_redis(session: aiohttp.ClientSession, url: str, token: str) -> object:
    async with session.post(url, json=["PING"], headers={"Authorization": f"Bearer {token}"}) as reply:
        return (await reply.json())["result"]
