"""README's commands and programs are run, and print what README shows.

A fenced block after `<!-- run: start|shell|node|python -->` is run; one after `<!-- prints: ... -->` is what the run
before it must print (for `demo`: what the demo command prints). Figures that differ from run to run are compared by
kind.
"""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.local_cloud.command import local_cloud_process
from tests.sdk.apps import python_env

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BUILD = (ROOT / "build.sh").read_text("utf-8")
BLOCK = re.compile(r"^<!-- (run|prints): (\w+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "=== end of block ==="
# It says that something hangs, not that the machine is slow.
TIMEOUT_S = 240

pytestmark = pytest.mark.timeout(TIMEOUT_S + 60)

VOLATILE = {"delayTime", "executionTime", "latency_ms", "gpu_ms", "workerId", "request_id"}


@dataclass(frozen=True)
class Block:
    """`role` is run or prints; `kind` says how."""

    role: str
    kind: str
    text: str


BLOCKS = [Block(*match) for match in BLOCK.findall(README)]


def shown(kind: str) -> list[str]:
    return [block.text for block in BLOCKS if (block.role, block.kind) == ("prints", kind)]


def stable(value: Any) -> Any:
    """A JSON value with what differs from run to run replaced by its type; JSON inside a string is read too."""
    if isinstance(value, dict):
        return {
            name: type(item).__name__ if name in VOLATILE or name.endswith("_at") else stable(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [stable(item) for item in value]
    if isinstance(value, str):
        if value.startswith("{"):
            return stable(json.loads(value))
        return re.sub(r"^(batch_[0-9a-f]{24}|sync-[0-9a-f-]{36}-u1)$", lambda m: m[1][:5], value)
    return value


async def print_blocks(folder: Path) -> list[str]:
    """What each `run` block prints, in their order, on one local cloud and in one shell."""
    (folder / "node_modules").mkdir()
    (folder / "node_modules/llm-batch-adapter").symlink_to(ROOT / "node-adapter")
    (folder / "node_modules/@anthropic-ai").symlink_to(ROOT / "node-adapter/node_modules/@anthropic-ai")
    # As npm installs it.
    command = folder / "node_modules/.bin/llm-batch"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec node {ROOT}/node-adapter/dist/esm/cli/main.js "$@"\n', "utf-8")
    command.chmod(0o755)
    script: list[str] = []
    for number, block in enumerate(block for block in BLOCKS if block.role == "run"):
        if block.kind == "node":
            program = folder / f"block{number}.mjs"
            program.write_text(block.text, "utf-8")
            script.append(f"node {program.name}")
        elif block.kind == "python":
            program = folder / f"block{number}.py"
            program.write_text(block.text, "utf-8")
            script.append(f"{shlex.quote(sys.executable)} {program.name}")
        elif block.kind == "shell":
            script.append(block.text)
        script.append(f"echo; echo {shlex.quote(MARK)}")
    async with local_cloud_process({"LOCAL_LOG_DIR": str(folder / "logs")}) as cloud:
        (folder / "cloud.json").write_text(json.dumps(cloud.description), "utf-8")
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", "\n".join(script)),
            cwd=folder,
            env={**os.environ, **python_env("2.11.0")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(shell.communicate(), TIMEOUT_S)
        finally:
            if shell.returncode is None:
                shell.kill()
                await shell.wait()
    assert shell.returncode == 0, err.decode()
    return [part.strip() for part in out.decode().split(MARK)[:-1]]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Block, str]]:
    """Each `prints` block with what the run before it really printed."""
    outputs = iter(asyncio.run(print_blocks(tmp_path_factory.mktemp("readme"))))
    pairs: list[tuple[Block, str]] = []
    last = ""
    for block in BLOCKS:
        if block.role == "run":
            last = next(outputs)
        elif block.kind != "demo":
            pairs.append((block, last))
    return pairs


def test_the_shell_blocks_print_the_json_that_readme_shows(printed: list[tuple[Block, str]]) -> None:
    pairs = [
        (json.loads(block.text), json.loads(output)) for block, output in printed if block.kind == "json"
    ]
    assert len(pairs) == len(shown("json")) > 0
    for wanted, got in pairs:
        assert stable(got) == stable(wanted)


def test_the_programs_print_the_text_that_readme_shows(printed: list[tuple[Block, str]]) -> None:
    pairs = [(block.text.strip(), output) for block, output in printed if block.kind == "text"]
    assert len(pairs) == len(shown("text")) > 0
    for wanted, got in pairs:
        assert got == wanted


def test_the_local_cloud_is_started_as_readme_says() -> None:
    """The test starts it without build.sh, so that nothing is installed meanwhile."""
    assert [block.text for block in BLOCKS if block.kind == "start"] == ["./build.sh local > cloud.json\n"]
    assert re.search(r'^  local\)\n.*\n    exec "\$BIN/python" -m tests\.local_cloud', BUILD, re.MULTILINE)


def test_every_shell_block_is_run_here_or_by_another_test() -> None:
    blocks = re.findall(r"^```(?:sh|js|python)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    elsewhere = (
        "./build.sh demo\n",
        "./build.sh test\n",
        "./build.sh test-vllm\n",
        "(cd node-adapter && npm ci && npm run build)\n",
    )
    run = {block.text for block in BLOCKS if block.role == "run"}
    assert [text for text in blocks if text not in run and not text.startswith(elsewhere)] == []


def test_the_demo_prints_the_table_that_readme_shows(tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "tests.demo", "--out", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert demo.returncode == 0, demo.stderr
    [wanted] = shown("demo")
    assert without_figures(demo.stdout).startswith(without_figures(wanted))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("email.jsonl", "personalized.jsonl", "polish.jsonl", "sales_intel.jsonl", "subject.jsonl")
    ]


def without_figures(table: str) -> str:
    """The words and the number of requests; measured figures, and the width they take, are left open."""
    lines = [re.sub(r"\d+\.\d+|\d+,\d+", "#", line) for line in table.strip().splitlines()]
    return "\n".join(" ".join(re.sub(r"-{3,}", "---", line).split()) for line in lines)
