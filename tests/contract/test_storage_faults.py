"""Each fault of the local S3, at the product's client, in front of each server; and that the proxy changes nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from shared.adapters import s3 as s3_adapter
from shared.adapters.s3 import ATTEMPTS, S3
from shared.config import S3Config
from shared.errors import StorageUnavailable
from tests.conftest import ROOT, STOP_TIMEOUT_S
from tests.local_cloud.s3_faults import EFFECTS
from tests.local_cloud.s3_proxy import FAULTS_PATH
from tests.local_cloud.storage import SERVERS

LARGE = bytes(range(256)) * 4096
# A name that has to be quoted in a URL: what is signed must arrive as it was sent.
INPUT, OUTPUT = "payload/n ü+%2F/in/0", "payload/n/out/0/1"


@dataclass(frozen=True)
class Faulty:
    """The service as `./build.sh local` starts it, and its control interface."""

    server: str
    s3: S3
    url: str

    def set(self, **values: Any) -> None:
        assert httpx.post(self.url, json=values).status_code == 200

    def fired(self, name: str) -> int:
        return int(httpx.get(self.url).json()[name]["fired"])


@pytest.fixture(scope="module", params=SERVERS)
def service(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.local_cloud.storage"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LOCAL_S3": request.param},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())
    process.stdin.close()
    process.wait(STOP_TIMEOUT_S)
    process.stdout.close()


@pytest.fixture
def faulty(service: dict[str, Any]) -> Iterator[Faulty]:
    s3 = S3(
        S3Config(
            endpoint_url=service["endpoint_url"],
            bucket=service["bucket"],
            access_key_id=service["access_key_id"],
            secret_access_key=SecretStr(service["secret_access_key"]),
            region="us-east-1",
        )
    )
    made = Faulty(service["server"], s3, service["control_url"] + FAULTS_PATH)
    yield made
    made.set(**dict.fromkeys(EFFECTS, 0))


async def test_without_faults_everything_passes_as_it_was_signed(faulty: Faulty) -> None:
    await faulty.s3.check()
    await faulty.s3.put(INPUT, LARGE)
    await faulty.s3.put(OUTPUT, b"")
    assert await faulty.s3.get(INPUT) == LARGE
    assert await faulty.s3.get(OUTPUT) == b""
    await faulty.s3.delete([INPUT, OUTPUT, "payload/n/never"])
    assert await faulty.s3.get(INPUT) is None


@pytest.mark.parametrize("fault", ["s3_500", "s3_503", "s3_timeout_after_write"])
async def test_a_write_survives_a_passing_fault(faulty: Faulty, fault: str) -> None:
    fired = faulty.fired(fault)
    faulty.set(**{fault: {"times": 1}})
    await faulty.s3.put(INPUT, LARGE)
    assert faulty.fired(fault) == fired + 1
    assert await faulty.s3.get(INPUT) == LARGE


async def test_a_delete_survives_the_loss_of_its_answer(faulty: Faulty) -> None:
    await faulty.s3.put(INPUT, LARGE)
    faulty.set(s3_timeout_after_write={"times": 1})
    await faulty.s3.delete([INPUT])
    assert await faulty.s3.get(INPUT) is None


@pytest.mark.parametrize("fault", ["s3_500", "s3_503", "s3_truncated"])
async def test_a_read_survives_a_passing_fault(faulty: Faulty, fault: str) -> None:
    await faulty.s3.put(INPUT, LARGE)
    fired = faulty.fired(fault)
    faulty.set(**{fault: {"times": 1}})
    assert await faulty.s3.get(INPUT) == LARGE
    assert faulty.fired(fault) == fired + 1


async def test_a_body_that_always_breaks_off_is_typed(faulty: Faulty) -> None:
    await faulty.s3.put(INPUT, LARGE)
    fired = faulty.fired("s3_truncated")
    faulty.set(s3_truncated=1)
    with pytest.raises(StorageUnavailable, match="did not answer get"):
        await faulty.s3.get(INPUT)
    assert faulty.fired("s3_truncated") == fired + ATTEMPTS


@pytest.mark.parametrize(
    ("fault", "says"), [("s3_500", "InternalError"), ("s3_503", "SlowDown"), ("s3_refused", "AccessDenied")]
)
async def test_a_fault_that_does_not_pass_is_typed_by_its_code(
    faulty: Faulty, fault: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_adapter, "ATTEMPTS", 1)
    faulty.set(**{fault: 1})
    for call in (
        faulty.s3.put(INPUT, LARGE),
        faulty.s3.get(INPUT),
        faulty.s3.delete([INPUT]),
        faulty.s3.check(),
    ):
        with pytest.raises(StorageUnavailable, match=says):
            await call


async def test_what_is_refused_is_not_carried_out(faulty: Faulty) -> None:
    faulty.set(s3_refused=1)
    with pytest.raises(StorageUnavailable):
        await faulty.s3.put("payload/refused", LARGE)
    faulty.set(s3_refused=0)
    assert await faulty.s3.get("payload/refused") is None


async def test_a_signature_that_is_too_old_is_refused_at_once(faulty: Faulty) -> None:
    fired = faulty.fired("s3_expired")
    faulty.set(s3_expired=1)
    # rclone's own code for it; AWS says it more exactly.
    code = {"rclone": "AccessDenied", "moto": "RequestTimeTooSkewed"}[faulty.server]
    with pytest.raises(StorageUnavailable, match=f"refused put: {code}"):
        await faulty.s3.put(INPUT, LARGE)
    assert faulty.fired("s3_expired") == fired + 1


async def test_an_object_may_be_missing_for_a_moment(faulty: Faulty) -> None:
    await faulty.s3.put(INPUT, LARGE)
    faulty.set(s3_missing={"times": 1})
    assert [await faulty.s3.get(INPUT) for _ in range(2)] == [None, LARGE]


async def test_the_outputs_of_shards_can_be_refused_alone(faulty: Faulty) -> None:
    await faulty.s3.put(OUTPUT, LARGE)
    faulty.set(s3_refused_output=1)
    for call in (faulty.s3.put(OUTPUT, LARGE), faulty.s3.get(OUTPUT)):
        with pytest.raises(StorageUnavailable, match="AccessDenied"):
            await call
    await faulty.s3.put(INPUT, LARGE)
    assert await faulty.s3.get(INPUT) == LARGE
