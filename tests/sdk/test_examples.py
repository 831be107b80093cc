"""The examples of the SDKs' own pages run unchanged but for one statement: the client's construction."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.flow.cloud import FlowCloud
from tests.local_cloud.cloud import REPOSITORY
from tests.sdk.apps import ADAPTER, python_env

PYTHON = '{name}(api_key="unused", http_client={make}(os.environ["LOCAL_BATCH_URL"], os.environ["RUNPOD_API_KEY"]))'
TYPESCRIPT = """new Anthropic({
  apiKey: 'unused',
  fetch: runpodFetch({ batchUrl: process.env.LOCAL_BATCH_URL, apiKey: process.env.RUNPOD_API_KEY }),
})"""
# An example looks once a minute. Here that is a moment, and nothing else is another length.
PYTHON_MINUTE = """import asyncio, time
def shorter(sleep): return lambda s, *rest: sleep(0.05 if s == 60 else s, *rest)
time.sleep, asyncio.sleep = shorter(time.sleep), shorter(asyncio.sleep)
"""
NODE_MINUTE = """const wait = globalThis.setTimeout;
globalThis.setTimeout = (run, ms, ...rest) => wait(run, ms === 60_000 ? 50 : ms, ...rest);
"""


@dataclass(frozen=True, slots=True)
class Example:
    """`before` is the construction on the page; `imports` stand above the program."""

    page: str
    version: str
    before: str
    after: str
    imports: str

    def __str__(self) -> str:
        return f"{Path(self.page).name}-{self.version}"

    def program(self) -> str:
        """The page with the client constructed as here, and nothing else changed."""
        page = (REPOSITORY / self.page).read_text("utf-8")
        assert page.count(self.before) == 1
        return self.imports + page.replace(self.before, self.after)


def python(page: str, version: str, name: str, make: str) -> Example:
    imports = f"{PYTHON_MINUTE}import os\nfrom runpod_anthropic import {make}\n"
    after = PYTHON.format(name=name, make=make)
    return Example(f"tests/sdk/examples/{page}", version, f"{name}()", after, imports)


EXAMPLES = [
    *(python("batch.py", version, "anthropic.Anthropic", "http_client") for version in ("0.125.0", "2.11.0")),
    *(
        python("batch_async.py", version, "anthropic.AsyncAnthropic", "async_http_client")
        for version in ("0.125.0", "2.11.0")
    ),
    *(
        Example(
            "node-adapter/test/sdk/batch.mjs",
            version,
            "new Anthropic()",
            TYPESCRIPT,
            f"{NODE_MINUTE}import {{ runpodFetch }} from 'llm-batch-adapter/runpodFetch';\n",
        )
        for version in ("0.137.0", "1.11.0")
    ),
]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
async def test_a_published_example_runs_unchanged_but_for_the_clients_construction(
    cloud: FlowCloud, example: Example, tmp_path: Path
) -> None:
    program = tmp_path / Path(example.page).name
    program.write_text(example.program(), "utf-8")
    service = {"LOCAL_BATCH_URL": cloud.address["batch_url"], "RUNPOD_API_KEY": cloud.address["api_key"]}
    is_python = program.suffix == ".py"
    if not is_python:
        sdk = "@anthropic-ai/sdk" if example.version == "1.11.0" else "anthropic-sdk-0"
        (tmp_path / "node_modules/@anthropic-ai").mkdir(parents=True)
        (tmp_path / "node_modules/llm-batch-adapter").symlink_to(ADAPTER)
        (tmp_path / "node_modules/@anthropic-ai/sdk").symlink_to(ADAPTER / "node_modules" / sdk)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable if is_python else "node", program),
        env={**os.environ, **service, **(python_env(example.version) if is_python else {})},
        cwd=tmp_path,
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    first, *lines = out.decode().splitlines()
    assert re.fullmatch(r"Batch \S+ is message_batch", first)
    assert lines == [
        "2 succeeded",
        "Success! my-first-request",
        "Success! my-second-request",
        "Listed message_batch",
    ]
