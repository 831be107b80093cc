"""The page on reliability names every fault that can be set, and every one of them is set by a test."""

import re
from pathlib import Path

import pytest

from tests.local_cloud.failpoints.moments import MOMENTS
from tests.local_cloud.queue.faults import FAULTS
from tests.local_cloud.s3_faults import EFFECTS as S3
from tests.local_cloud.upstash.faults import EFFECTS as REDIS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMES = [*FAULTS, *REDIS, *S3]
# The product's handlers post no progress: only the queue itself can be asked about it.
OF_THE_QUEUE_ALONE = {"late_progress_overwrites"}


@pytest.mark.parametrize("name", [*NAMES, *MOMENTS])
def test_every_fault_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sorted({*NAMES} - OF_THE_QUEUE_ALONE))
def test_every_fault_is_set_by_a_test_on_real_processes(name: str) -> None:
    tests = [*(ROOT / "tests" / "flow").glob("*.py"), *(ROOT / "tests" / "contract").glob("*.py")]
    assert any(name in path.read_text(encoding="utf-8") for path in tests)


def test_every_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)`", PAGE)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
