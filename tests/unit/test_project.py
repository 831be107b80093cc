"""The project as a whole: its folders, its entry point, its pins, and what no file may contain."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.project import ROOT, pins, text_of

BIN = Path(sys.executable).parent

FOLDERS = {".ci", "docs", "handlers", "node-adapter", "runpod", "shared", "tests"}
FILES = {
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "build.sh",
    "pyproject.toml",
}
VERBS = ["demo", "test", "test-vllm", "local", "soak", "bench", "images", "push", "deploy", "smoke"]


def build(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "build.sh", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def project_files() -> list[Path]:
    """Every file that belongs to the project: tracked, or new and not ignored."""
    listing = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def test_the_top_level_is_the_agreed_one() -> None:
    tops = {path.relative_to(ROOT).parts for path in project_files()}
    assert {parts[0] for parts in tops if len(parts) > 1} <= FOLDERS
    assert {parts[0] for parts in tops if len(parts) == 1} == FILES


def test_alone_build_sh_prints_each_verb_on_a_line() -> None:
    answer = build()
    assert answer.returncode == 0
    assert re.findall(r"^  ([a-z-]+) {2,}\S", answer.stdout, re.MULTILINE) == VERBS


def test_an_unknown_verb_exits_2_and_prints_the_verbs() -> None:
    answer = build("tset")
    assert answer.returncode == 2
    assert "unknown verb tset" in answer.stderr
    assert "usage: ./build.sh VERB" in answer.stderr
    assert answer.stdout == ""


def test_images_would_build_each_handler_from_the_root() -> None:
    answer = build("images", "--dry-run", "--tag", "t1", REGISTRY="")
    assert answer.returncode == 0, answer.stderr
    commands = [shlex.split(line) for line in answer.stdout.splitlines()]
    assert all(command[:2] == ["docker", "build"] and command[-1] == "." for command in commands)
    assert [(command[command.index("-t") + 1], command[command.index("-f") + 1]) for command in commands] == [
        ("llm-batch-batch-api:t1", "handlers/batch_api/Dockerfile"),
        ("llm-batch-mistral:t1", "handlers/mistral/Dockerfile"),
        ("llm-batch-llama:t1", "handlers/llama/Dockerfile"),
    ]


def test_push_would_push_what_it_builds() -> None:
    answer = build("push", "--dry-run", "--tag", "t1", REGISTRY="registry.example/team")
    assert answer.returncode == 0, answer.stderr
    commands = [shlex.split(line) for line in answer.stdout.splitlines()]
    built = [command[command.index("-t") + 1] for command in commands if command[1] == "build"]
    pushed = [command[2] for command in commands if command[1] == "push"]
    assert (
        pushed
        == built
        == [f"registry.example/team/llm-batch-{name}:t1" for name in ("batch-api", "mistral", "llama")]
    )


def test_push_without_a_registry_says_so() -> None:
    answer = build("push", "--dry-run", REGISTRY="")
    assert answer.returncode == 1
    assert "REGISTRY" in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("arguments", [["images", "--tag"], ["images", "--tagg", "x"]])
def test_a_mistyped_image_option_builds_nothing(arguments: list[str]) -> None:
    answer = build(*arguments)
    assert answer.returncode == 1
    assert "--tag" in answer.stderr


def test_images_without_a_docker_daemon_says_so(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    answer = build("images", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert answer.returncode == 1
    assert "daemon does not answer" in answer.stderr


@pytest.mark.parametrize("script", ["build.sh", ".ci/run"])
def test_scripts_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_no_file_names_a_path_of_some_machine() -> None:
    home = re.compile(r"/(?:home|Users)/[a-z]\w*/|/roo[t]/\w|[A-Z]:\\Users")
    places = [str(place) for place in (ROOT, Path.home()) if len(place.parts) > 2]
    for path in project_files():
        text = text_of(path)
        assert not home.search(text), f"{path}: {home.search(text)}"
        assert not [place for place in places if place in text], path


def test_lock_files_hold_versions_and_no_addresses() -> None:
    locks = [ROOT / "tests/requirements.in", ROOT / "tests/requirements.txt", *ROOT.glob("tests/sdk/*.txt")]
    assert len(locks) == 4
    for lock in locks:
        assert "://" not in text_of(lock)
        assert pins(lock)
    packages = json.loads(text_of(ROOT / "node-adapter/package-lock.json"))["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]


def test_the_lock_has_every_direct_pin() -> None:
    lock = pins(ROOT / "tests/requirements.txt")
    direct = pins(ROOT / "tests/requirements.in")
    assert {name: lock.get(name) for name in direct} == direct


def node_pins() -> dict[str, str]:
    """The version of each direct dependency of the adapter, of one under another name too (`npm:package@version`)."""
    package = json.loads(text_of(ROOT / "node-adapter/package.json"))
    return {name: pin.rpartition("@")[2] for name, pin in package["devDependencies"].items()}


def test_the_node_lock_has_every_direct_pin() -> None:
    package = json.loads(text_of(ROOT / "node-adapter/package.json"))
    lock = json.loads(text_of(ROOT / "node-adapter/package-lock.json"))["packages"]
    assert "dependencies" not in package
    direct = node_pins()
    assert {name: lock[f"node_modules/{name}"]["version"] for name in direct} == direct


def test_every_direct_dependency_is_justified_with_its_version() -> None:
    page = text_of(ROOT / "docs/dependencies.md")
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^ |]+) \| \S", page, re.MULTILINE))
    python = pins(ROOT / "tests/requirements.in")
    node = node_pins()
    assert rows == {**python, **node}


def test_the_python_3_10_check_fails_on_newer_code(tmp_path: Path) -> None:
    """With the flags of build.sh, so that a change there cannot make the check toothless."""
    flags = re.search(r'"\$BIN/vermin" (.+) shared handlers', text_of(ROOT / "build.sh"))
    assert flags

    def exit_code(source: str) -> int:
        (tmp_path / "module.py").write_text(source)
        command = [BIN / "vermin", *flags[1].split(), tmp_path / "module.py"]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert (
        exit_code("import asyncio\n\nasync def f():\n    async with asyncio.timeout(1):\n        pass\n") == 1
    )
    assert exit_code("from enum import StrEnum\n") == 1
    assert exit_code("x: int | None = None\nmatch x:\n    case None:\n        pass\n") == 0
