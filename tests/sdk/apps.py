"""Apps on the official SDKs, each in a process of its own that does what a test tells it."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flow.cloud import eventually
from tests.local_cloud.cloud import REPOSITORY

ADAPTER = REPOSITORY / "node-adapter"
# build.sh gives each version of the Python SDK a folder of its own: they need different packages.
PYTHON_SDKS = Path(sys.prefix) / "sdk"
LINE_LIMIT_BYTES = 64 * 1024 * 1024


class Threw(Exception):
    """The SDK's error, as its caller sees it."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error))
        self.name: str = error["class"]
        self.status: int | None = error["status"]
        self.type: str | None = error["type"]
        self.message: str = error["message"]
        self.request_id: str | None = error["request_id"]
        self.is_connection: bool = error["connection"]


@dataclass(frozen=True, slots=True)
class Sdk:
    """A version of an SDK: of TypeScript by its package, of Python by its kind of client."""

    language: str
    version: str
    use: str

    def __str__(self) -> str:
        kind = f"-{self.use}" if self.language == "python" else ""
        return f"{self.language}-{self.version}{kind}"

    @property
    def program(self) -> tuple[str, ...]:
        if self.language == "python":
            return (sys.executable, "tests/sdk/driver.py", self.use)
        return ("node", "node-adapter/test/sdk/driver.mjs", self.use)

    @property
    def env(self) -> dict[str, str]:
        return python_env(self.version) if self.language == "python" else {}


def python_env(version: str) -> dict[str, str]:
    folder = PYTHON_SDKS / version
    assert folder.is_dir(), f"{folder} is missing: ./build.sh test sets it up"
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ADAPTER / 'python'}"}


SDKS = (
    Sdk("typescript", "0.137.0", "anthropic-sdk-0"),
    Sdk("typescript", "1.11.0", "@anthropic-ai/sdk"),
    *(Sdk("python", version, kind) for version in ("0.125.0", "2.11.0") for kind in ("sync", "async")),
)


@dataclass(frozen=True, slots=True)
class App:
    """Does one thing at a time; what it can do stands in the drivers."""

    process: Process

    async def do(self, operation: str, **arguments: Any) -> Any:
        """What the SDK gave. Raises Threw."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"do": operation, **arguments}).encode() + b"\n")
        answer = json.loads(await self.process.stdout.readline() or "{}")
        if "threw" in answer:
            raise Threw(answer["threw"])
        return answer["gave"]

    async def ended(self, batch_id: str) -> dict[str, Any]:
        """The batch at its end, polled for as an app does."""

        async def look() -> dict[str, Any] | None:
            batch: dict[str, Any] = await self.do("retrieve", id=batch_id)
            return batch if batch["processing_status"] == "ended" else None

        ended = await eventually(look, f"batch {batch_id} ends", timeout_s=60)
        assert ended
        return ended


@asynccontextmanager
async def running(sdk: Sdk, address: Mapping[str, str]) -> AsyncIterator[App]:
    """The app on a local cloud; ends with the block."""
    service = {"LOCAL_BATCH_URL": address["batch_url"], "RUNPOD_API_KEY": address["api_key"]}
    process = await asyncio.create_subprocess_exec(
        *sdk.program,
        cwd=REPOSITORY,
        env={**os.environ, **service, **sdk.env},
        stdin=PIPE,
        stdout=PIPE,
        limit=LINE_LIMIT_BYTES,
    )
    try:
        yield App(process)
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()
