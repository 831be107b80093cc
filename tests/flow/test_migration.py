"""The migration examples through the service: after their move, and between both services."""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.flow.cloud import FlowCloud
from tests.local_cloud.cloud import REPOSITORY

ADAPTER = REPOSITORY / "node-adapter"
STAGES = ("sales_intel", "subject", "email", "polish")
LEADS = (ADAPTER / "examples/leads.jsonl").read_text("utf-8").splitlines()[:8]

pytestmark = pytest.mark.usefixtures("built_examples")


@pytest.fixture(scope="session")
def built_examples() -> None:
    if not (ADAPTER / "dist-examples" / "own-contract").exists():
        subprocess.run(["npm", "run", "build"], cwd=ADAPTER, check=True)


async def run_node(cloud: FlowCloud, folder: Path, *args: str | Path, **env: str) -> str:
    """What a program printed that ended well."""
    process = await asyncio.create_subprocess_exec(
        *("node", *args),
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "LOCAL_BATCH_URL": cloud.address["batch_url"],
            "RUNPOD_API_KEY": cloud.address["api_key"],
            **env,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def run_campaign(
    cloud: FlowCloud, folder: Path, service: str, **env: str
) -> tuple[list[dict[str, Any]], str]:
    """What a service wrote for each lead, and what it printed."""
    name = service.replace("/", "-")
    leads, results = folder / f"{name}-leads.jsonl", folder / f"{name}-results.jsonl"
    leads.write_text("\n".join(LEADS), "utf-8")
    printed = await run_node(cloud, ADAPTER, f"dist-examples/{service}/campaign.js", leads, results, **env)
    return [json.loads(line) for line in results.read_text("utf-8").splitlines()], printed


# What each of the services between both needs besides. Nothing answers at the managed side: a request that went
# there would fail the service.
SERVICES: dict[str, dict[str, str]] = {
    "own-contract/after": {},
    "anthropic-sdk/after": {},
    "own-contract/during": {"USE_LOCAL_LLM": "on", "FORMER_BATCH_URL": "http://127.0.0.1:9"},
    "anthropic-sdk/during": {
        "USE_LOCAL_LLM": "on",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "ANTHROPIC_API_KEY": "unused",
    },
}


async def test_the_services_that_moved_write_every_lead(cloud: FlowCloud, tmp_path: Path) -> None:
    """After the move, and between both services at 100 %. At once, because each waits for its batches by the clock."""
    runs = [run_campaign(cloud, tmp_path, service, **env) for service, env in SERVICES.items()]
    for service, (rows, printed) in zip(SERVICES, await asyncio.gather(*runs), strict=True):
        assert [row["leadId"] for row in rows] == [json.loads(lead)["leadId"] for lead in LEADS], service
        for row in rows:
            assert row.keys() == {"leadId", *STAGES}, service
            assert all(row[stage] for stage in STAGES), service
        assert printed == "".join(f"{stage}: {len(LEADS)} of {len(LEADS)} leads\n" for stage in STAGES), (
            service
        )


async def test_a_batch_on_two_sides_comes_back_as_one_with_its_comparison(cloud: FlowCloud) -> None:
    saw = json.loads(await run_node(cloud, REPOSITORY, "tests/flow/rollout_flow.mjs", USE_LOCAL_LLM="1"))
    assert saw["id"].startswith("split:batch_")
    assert 0 < saw["here"] < 60
    assert saw["status"]["counts"] == {"total": 60, "succeeded": 60, "errored": 0, "pending": 0}
    assert saw["order"] == saw["asked"]
    assert set(saw["statuses"]) == {"succeeded"}
    report = saw["report"]
    copies = report["pairs"]["both"]
    assert report["pairs"] == {"both": copies, "localOnly": 0, "remoteOnly": 0, "neither": 0}
    # Each copy ran on the side where its request did not.
    assert report["local"]["requests"] + report["remote"]["requests"] == 60 + copies
    assert report["local"]["requests"] >= saw["here"]
    assert report["local"]["costUsd"] > 0 < report["remote"]["costUsd"]
    assert [len(report["samples"]), report["shadowsFailed"]] == [2, 0]
    assert "Write to" not in saw["table"]
    # It may have ended before the cancel came.
    assert isinstance(saw["canceled"], dict) or saw["canceled"].startswith("Failed to cancel batch: 409 ")
