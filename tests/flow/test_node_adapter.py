"""The Node adapter as it is published, against the service."""

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bench import large
from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud
from tests.flow.expected import assert_all_succeeded, assert_failed, assert_status_shape, counts, lifetime_s
from tests.local_cloud.cloud import REPOSITORY

ADAPTER = REPOSITORY / "node-adapter"


@pytest.fixture(scope="session")
def built_adapter() -> None:
    if not (ADAPTER / "dist" / "esm" / "index.js").exists():
        subprocess.run(["npm", "run", "build"], cwd=ADAPTER, check=True)


@pytest.mark.usefixtures("built_adapter")
async def test_the_node_adapter_creates_waits_and_fetches_with_typed_errors(cloud: FlowCloud) -> None:
    requests = make_requests(40)
    for request, custom_id in zip(requests, ("ключ 🦔", 'a"b\\c\n', "x" * 256), strict=False):
        request["custom_id"] = custom_id
    process = await asyncio.create_subprocess_exec(
        *("node", "tests/flow/adapter_flow.mjs", json.dumps(requests)),
        cwd=REPOSITORY,
        env={
            **os.environ,
            "LOCAL_BATCH_URL": cloud.address["batch_url"],
            "RUNPOD_API_KEY": cloud.address["api_key"],
        },
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    saw = json.loads(out)
    batch_id = saw["id"]
    assert_status_shape(saw["status"])
    assert saw["status"]["counts"] == counts(40, 40)
    assert_all_succeeded(saw["results"], requests)
    assert saw["again"] == {"id": batch_id}
    assert batch_id in saw["listed"]
    assert saw["deleted"] == {"id": batch_id, "deleted": True}
    for name, prefix, status, kind in (
        ("early", "Failed to get batch results: 400 ", 400, "batch_not_ended"),
        ("conflict", "Failed to create batch: 409 ", 409, "conflict_error"),
        ("invalid", "Failed to create batch: 400 ", 400, "invalid_request_error"),
        ("nothingFailed", "Failed to retry batch: 400 ", 400, "invalid_request_error"),
        ("gone", "Failed to get batch status: 404 ", 404, "not_found_error"),
    ):
        assert saw[name]["message"].startswith(prefix), saw[name]
        assert (saw[name]["status"], saw[name]["type"]) == (status, kind)
    assert "Batch not yet complete" in saw["early"]["message"]
    assert saw["invalid"]["param"] == "requests[0].custom_id"
    assert_retried(saw["retried"], requests)


@pytest.mark.usefixtures("built_adapter")
async def test_a_batch_of_several_parts_goes_in_and_comes_out_through_the_adapter(
    client: BatchClient, tmp_path: Path
) -> None:
    size, out = large.Size(requests=1_000, bytes=14 * large.MB), tmp_path / "results.jsonl"
    figures = await large.measure(client, size, out, status_calls=3)
    assert (figures["requests"], figures["parts"]) == (1_000, 4)
    assert abs(figures["mb"] - 14) < 0.1
    ids = [json.loads(line)["custom_id"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert ids == [f"lead_{n}_email" for n in range(1_000)]
    sizes = [status["bytes"] for status in figures["statuses"].values()]
    assert max(sizes) < 1.2 * min(sizes), "a status grows with its batch"


def assert_retried(saw: Mapping[str, Any], requests: Sequence[Mapping[str, Any]]) -> None:
    """Every second request failed, and failed again in the retry."""
    first, status = saw["firstStatus"], saw["status"]
    assert_status_shape(status)
    assert first["counts"] == counts(40, 20, 20)
    assert lifetime_s(first) == lifetime_s(status) == 3600
    assert (first["retry_of"], status["retry_of"]) == (None, first["id"])
    assert status["counts"] == counts(20, 0, 20)
    assert [line["custom_id"] for line in saw["results"]] == [
        request["custom_id"] for request in requests[::2]
    ]
    for line in saw["results"]:
        assert_failed(line, "errored", "invalid_request_error", "mistral")
