"""One deployment under test: a fake RunPod, the local Upstash, and the tool's own `main` with its lines caught."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from deploy import main
from terminal import Terminal

from tests.conftest import UpstashAddress
from tests.deploy_cloud.runpod_v2 import FakeRunpod
from tests.local_cloud.serving import LocalServer

KEY = "rpa_the-runpod-key"
HF_TOKEN = "hf_the-hugging-face-token"


@dataclass
class Deploying:
    """`run` is `./build.sh deploy` with this environment; `paused_s` are the waits it asked for, none of them real."""

    runpod: FakeRunpod
    upstash: UpstashAddress
    environment: dict[str, str]
    answer: str | None = None
    paused_s: list[float] = field(default_factory=list)
    output: str = ""
    said: str = ""

    async def run(self, *arguments: str) -> int:
        out, err = io.StringIO(), io.StringIO()
        terminal = Terminal(
            out,
            err,
            None if self.answer is None else lambda _: self.answer or "",
            self.paused_s.append,
            self.clock,
        )
        given = ("--env-file=/dev/null", "--registry=docker.io/you", "--tag=1.0", *arguments)
        code = await asyncio.to_thread(main, given, self.environment, terminal)
        self.said = out.getvalue() + err.getvalue()
        self.output += self.said
        return code

    def clock(self) -> float:
        """Only pauses take time."""
        return sum(self.paused_s)

    def env_of(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.runpod.endpoint(name)["env"]
        return found

    async def redis(self, *command: str) -> httpx.Response:
        return await redis(self.upstash.url, self.upstash.token, *command)


async def redis(url: str, token: str, *command: str) -> httpx.Response:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=10) as client:
        return await client.post(url, json=list(command))


@asynccontextmanager
async def deploying(upstash: UpstashAddress) -> AsyncIterator[Deploying]:
    """A fresh account and no inbox user."""
    runpod = FakeRunpod(KEY)
    server = LocalServer(runpod.app())
    runpod.url = await server.start()
    environment = {
        "RUNPOD_API_KEY": KEY,
        "RUNPOD_API_URL": runpod.url,
        "UPSTASH_REDIS_REST_URL": upstash.url,
        "UPSTASH_REDIS_REST_TOKEN": upstash.token,
        "HF_TOKEN": HF_TOKEN,
    }
    await redis(upstash.url, upstash.token, "ACL", "DELUSER", "inbox")
    try:
        yield Deploying(runpod, upstash, environment)
    finally:
        await server.stop()
