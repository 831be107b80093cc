"""The migration examples, moved here, through the service as it runs: an app's services after their move, and between."""

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
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


async def run_campaign(
    cloud: FlowCloud, folder: Path, service: str, **env: str
) -> tuple[list[dict[str, Any]], str]:
    """What a service wrote for each lead, and what it printed."""
    leads, results = folder / "leads.jsonl", folder / "results.jsonl"
    leads.write_text("\n".join(LEADS), "utf-8")
    process = await asyncio.create_subprocess_exec(
        *("node", f"dist-examples/{service}/campaign.js", leads, results),
        cwd=ADAPTER,
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
    return [json.loads(line) for line in results.read_text("utf-8").splitlines()], out.decode()


def assert_every_lead_is_written(rows: Sequence[Mapping[str, Any]], printed: str) -> None:
    assert [row["leadId"] for row in rows] == [json.loads(lead)["leadId"] for lead in LEADS]
    for row in rows:
        assert row.keys() == {"leadId", *STAGES}
        assert all(row[stage] for stage in STAGES)
    assert printed == "".join(f"{stage}: {len(LEADS)} of {len(LEADS)} leads\n" for stage in STAGES)


@pytest.mark.parametrize("service", ["own-contract/after", "anthropic-sdk/after"])
async def test_a_service_that_moved_writes_every_lead(cloud: FlowCloud, tmp_path: Path, service: str) -> None:
    assert_every_lead_is_written(*await run_campaign(cloud, tmp_path, service))


@pytest.mark.parametrize(
    ("service", "managed"),
    [
        # Nothing answers at the managed side: a request that went there would fail the service.
        ("own-contract/during", {"FORMER_BATCH_URL": "http://127.0.0.1:9"}),
        ("anthropic-sdk/during", {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "ANTHROPIC_API_KEY": "unused"}),
    ],
    ids=["own-contract", "anthropic-sdk"],
)
async def test_at_100_percent_a_service_between_both_needs_this_one_alone(
    cloud: FlowCloud, tmp_path: Path, service: str, managed: Mapping[str, str]
) -> None:
    written = await run_campaign(cloud, tmp_path, service, USE_LOCAL_LLM="on", **managed)
    assert_every_lead_is_written(*written)
