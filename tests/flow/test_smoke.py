"""The smoke, load and platform runs for a deployed service, run against the local cloud as a user runs them."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml  # type: ignore[import-untyped]

from shared.adapters.upstash import Upstash
from tests.client import BatchClient
from tests.flow.cloud import FlowCloud, count_jobs, eventually, faults, keys_in, wait_for_worker
from tests.smoke.checks import CHECKS
from tests.smoke.facts import Fact, Finding, held
from tests.smoke.facts_webhooks import FACTS as WEBHOOK_FACTS
from tests.smoke.platform import INBOX_LEFT_S, MARKER, Platform
from tests.smoke.report import Report
from tests.smoke.run import check_service
from tests.smoke.settings import DEFAULT_FILE, Settings, read_settings
from tests.smoke.verify import FACTS, verify_platform

ROOT = Path(__file__).resolve().parents[2]
SECRETS = ("RUNPOD_API_KEY", "UPSTASH_REDIS_REST_TOKEN", "WEBHOOK_TOKEN", "S3_SECRET_ACCESS_KEY")


def small_config(folder: Path, **changes: Mapping[str, Any]) -> Path:
    """The shipped configuration with small counts and short waits; `changes` by section."""
    config = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
    config["smoke"] |= {"wait_s": 40, "poll_s": 0.1, "cancel_requests": 1500}
    config["load"] |= {"wait_s": 40, "poll_s": 0.1}
    for load in config["load"]["models"].values():
        load |= {"single_calls": 2, "latency_requests": 4, "requests": 24}
    config["load"]["leads"]["count"] = 2
    message = {"role": "user", "content": "Take long. [[stall]]"}
    config["verify"] |= {"poll_s": 0.1, "webhook_s": 3, "ttl_ms": 1500, "long_job": {"messages": [message]}}
    for section, values in changes.items():
        config[section] |= values
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def caller_env(cloud: FlowCloud) -> dict[str, str]:
    """The environment of a user of this cloud, with everything that the runs can use."""
    names = ("MISTRAL_BASE_URL", "LLAMA_BASE_URL", "S3_ENDPOINT_URL", "S3_BUCKET", "S3_ACCESS_KEY_ID")
    given = {name: cloud.worker_env[name] for name in (*names, *SECRETS, "UPSTASH_REDIS_REST_URL")}
    return {**given, "LOCAL_BATCH_URL": cloud.address["batch_url"]}


async def start(script: str, *arguments: object, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        ROOT / "tests" / script,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **env},
    )


async def output_of(process: asyncio.subprocess.Process) -> str:
    return (await asyncio.wait_for(process.communicate(), 110))[0].decode()


async def batch_ids(client: BatchClient) -> set[str]:
    return {batch["id"] for batch in (await client.call("list", limit=1000))["batches"]}


async def test_every_check_passes_on_the_local_cloud_and_leaves_no_batch(
    cloud: FlowCloud, client: BatchClient, tmp_path: Path
) -> None:
    before = await batch_ids(client)
    env = caller_env(cloud)
    process = await start("smoke_test.py", "--config", small_config(tmp_path), env=env)
    said = await output_of(process)
    assert process.returncode == 0, said
    assert [line.split("  ")[0] for line in said.splitlines()[1:-1]] == ["ok"] * len(CHECKS)
    assert env["RUNPOD_API_KEY"] not in said
    assert await batch_ids(client) <= before


async def test_a_service_that_routes_otherwise_fails_and_leaves_no_batch(
    cloud: FlowCloud, client: BatchClient, tmp_path: Path
) -> None:
    before = await batch_ids(client)
    config = small_config(tmp_path, smoke={"stages": {"subject": "mistral", "email": "llama-70b"}})
    stream = io.StringIO()
    routing = [check for check in CHECKS if check.name == "routing by stage"]
    assert not await check_service(read_settings(config, caller_env(cloud)), Report([], stream), routing)
    [failed] = [line for line in stream.getvalue().splitlines() if line.startswith("FAIL  routing by stage")]
    assert failed.endswith('expected stage email on llama-70b; saw {"mistral": 1}')
    assert await batch_ids(client) <= before


async def test_a_refused_key_fails_every_check_with_its_answer(cloud: FlowCloud, tmp_path: Path) -> None:
    env = {**caller_env(cloud), "RUNPOD_API_KEY": "rpa_wrong"}
    process = await start("smoke_test.py", "--config", small_config(tmp_path), env=env)
    said = await output_of(process)
    assert process.returncode == 1
    assert len([line for line in said.splitlines() if line.startswith("FAIL  ") and " 401 " in line]) == len(
        CHECKS
    )
    assert "left behind" not in said


async def test_a_run_that_is_stopped_removes_its_batches(
    cloud: FlowCloud, client: BatchClient, tmp_path: Path
) -> None:
    before = await batch_ids(client)
    process = await start("smoke_test.py", "--config", small_config(tmp_path), env=caller_env(cloud))

    async def began() -> bool:
        return not await batch_ids(client) <= before

    await eventually(began, "the run makes a batch")
    process.terminate()
    said = await output_of(process)
    assert process.returncode == 130, said
    assert await batch_ids(client) <= before


async def test_the_load_run_measures_each_model_and_stage_and_says_simulated(
    cloud: FlowCloud, client: BatchClient, tmp_path: Path
) -> None:
    before = await batch_ids(client)
    process = await start("load_test.py", "--config", small_config(tmp_path), env=caller_env(cloud))
    said = await output_of(process)
    lines = said.splitlines()
    assert lines[0].startswith("Simulated engine:")
    for model in ("mistral", "llama-70b"):
        assert len([line for line in lines if line.startswith(f"{model}: ") and "  0  " in line]) == 3, said
    stages = [line.split(",")[1].split()[0] for line in lines if line.startswith("2 leads, ")]
    assert stages == ["sales_intel", "subject", "email", "polish"]
    # On a busy machine a target may be missed; that is then what the run must say.
    assert process.returncode == (0 if "every target was met" in lines else 1), said
    assert await batch_ids(client) <= before


@pytest_asyncio.fixture
async def fresh_worker_after(client: BatchClient) -> AsyncIterator[None]:
    """The run cancels long jobs that were only just taken, and the SDK may lose the stop of such a one: here it would
    stay in the engine for ever, and keep a place from the tests that follow."""
    yield
    stained = await wait_for_worker(client, "mistral")
    os.kill(int(stained["pid"]), signal.SIGKILL)

    async def replaced() -> bool:
        return bool((await wait_for_worker(client, "mistral"))["pid"] != stained["pid"])

    await eventually(replaced, "another worker is ready", timeout_s=60)


@pytest.mark.usefixtures("fresh_worker_after")
async def test_the_local_cloud_is_as_the_code_expects_and_the_run_leaves_nothing(
    cloud: FlowCloud, client: BatchClient, cloud_redis: Upstash, tmp_path: Path
) -> None:
    env = caller_env(cloud)
    process = await start("smoke_test.py", "--verify-platform", "--config", small_config(tmp_path), env=env)
    said = await output_of(process)
    assert process.returncode == 0, said
    assert "0 DIFFERS" in said
    static = [fact.name for fact in FACTS if isinstance(fact.probe, str)]
    not_checked = [line.split(":")[0] for line in said.splitlines() if line.startswith("not checked")]
    assert not_checked == [f"not checked  {name}" for name in static]
    assert not [name for name in SECRETS if env[name] in said]

    assert not await keys_in(cloud_redis, "verify:*")
    assert not [user for user in await cloud_redis.execute("ACL", "USERS") if user.startswith("verify-")]
    for inbox in await keys_in(cloud_redis, "inbox:verify-*"):
        assert await cloud_redis.execute("LRANGE", inbox, 0, -1) == [MARKER]
        assert 0 < await cloud_redis.execute("TTL", inbox) <= INBOX_LEFT_S
    assert await count_jobs(client, "mistral", "IN_QUEUE", "IN_PROGRESS") == 0


async def verify(settings: Settings, *facts: Fact) -> tuple[bool, str]:
    stream = io.StringIO()
    return await verify_platform(settings, Report(settings.secrets, stream), facts), stream.getvalue()


@pytest.fixture
def settings(cloud: FlowCloud, tmp_path: Path) -> Settings:
    return read_settings(small_config(tmp_path, verify={"webhook_s": 1}), caller_env(cloud))


async def test_a_platform_that_drops_webhooks_is_told_as_a_difference(
    settings: Settings, client: BatchClient
) -> None:
    async with faults(client, drop_webhook=1):
        fine, said = await verify(settings, WEBHOOK_FACTS[0])
    assert not fine
    assert "DIFFERS      a webhook into Redis: nothing in Redis within 1 s" in said
    assert f"the code expects: {WEBHOOK_FACTS[0].expects} ({WEBHOOK_FACTS[0].stands})" in said


async def test_an_answer_that_a_probe_cannot_read_is_a_difference(settings: Settings) -> None:
    async def misread(platform: Platform) -> Finding:
        return held(bool(platform.settings.variables["NOT_THERE"]), "")

    fine, said = await verify(settings, replace(WEBHOOK_FACTS[0], probe=misread))
    assert not fine
    assert "unreadable: KeyError" in said


async def test_a_probe_that_hangs_is_given_up(cloud: FlowCloud, tmp_path: Path) -> None:
    async def hang(platform: Platform) -> Finding:
        await asyncio.Event().wait()
        return held(True, "")

    short = read_settings(small_config(tmp_path, verify={"limit_s": 0.2}), caller_env(cloud))
    fine, said = await verify(short, replace(WEBHOOK_FACTS[0], probe=hang))
    assert fine
    assert "not settled within 0.2 s" in said


async def test_facts_whose_variables_are_missing_are_named_and_not_checked(
    cloud: FlowCloud, tmp_path: Path
) -> None:
    env = {name: value for name, value in caller_env(cloud).items() if "REDIS" not in name}
    bare = read_settings(small_config(tmp_path), env)
    fine, said = await verify(bare, WEBHOOK_FACTS[0])
    assert fine
    assert "needs UPSTASH_REDIS_REST_URL, UPSTASH_REDIS_REST_TOKEN" in said
