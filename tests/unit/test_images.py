"""The images, checked without Docker: what they copy, start and pin, and what an import finds there."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images.dockerfile import HANDLERS, read_dockerfile
from tests.images.layout import Ignored
from tests.unit.project import ROOT, pins, text_of

MODELS = ["mistral", "llama"]
# The engine and what it is built on: whatever the base image has.
OF_THE_BASE_IMAGE = {"jinja2", "numpy", "tokenizers", "torch", "transformers", "triton", "vllm", "xformers"}
LABEL = "org.opencontainers.image"


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def imported_packages() -> set[str]:
    """The first names of all imports in shared/ and handlers/ that are neither ours nor Python's."""
    names = set()
    for path in [*ROOT.glob("shared/**/*.py"), *ROOT.glob("handlers/**/*.py")]:
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"shared", "handlers"}


def make_images(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`./build.sh ARGUMENTS`; only a dry run reaches no Docker."""
    names = ("REGISTRY", "TAG")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        ["./build.sh", *arguments],
        cwd=ROOT,
        env={**environment, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def labels(handler: str) -> dict[str, str]:
    pairs = [
        pair.partition("=")
        for arguments in read_dockerfile(handler).arguments("LABEL")
        for pair in shlex.split(arguments)
    ]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_image_starts_its_handler_as_a_module(handler: str) -> None:
    program, *words = read_dockerfile(handler).command
    assert program in {"python", "python3"}
    assert words == ["-u", "-m", f"handlers.{handler}.handler"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_image_says_what_it_is(handler: str) -> None:
    said = labels(handler)
    assert set(said) == {f"{LABEL}.{name}" for name in ("title", "description", "licenses")}
    assert said[f"{LABEL}.title"] == f"llm-batch-{handler.replace('_', '-')}"


def test_what_is_ignored_is_decided_by_the_last_pattern_that_matches() -> None:
    ignored = Ignored("# all but\n*\n!shared\n!tests/one.txt\n**/__pycache__\n*.md\n")
    for path in (
        "README.md",
        "tests/two.txt",
        "shared/core/__pycache__/a.pyc",
        "__pycache__/a.pyc",
        ".git/x",
    ):
        assert Path(path) in ignored, path
    for path in ("shared/errors.py", "shared/core/a.py", "tests/one.txt", "shared/notes.md"):
        assert Path(path) not in ignored, path


def test_the_images_install_the_same_versions_that_the_tests_run_with() -> None:
    lock = pins(ROOT / "tests/requirements.txt")
    for handler in HANDLERS:
        pinned = pins(ROOT / "handlers" / handler / "requirements.txt")
        assert pinned == {name: lock[name] for name in pinned}
        assert pinned == pins(ROOT / "handlers/batch_api/requirements.txt")


def test_the_images_install_exactly_what_the_code_imports() -> None:
    imported = {name.replace("_", "-") for name in imported_packages()} - OF_THE_BASE_IMAGE
    # boto3 brings botocore, jsonschema brings referencing, and they keep the two together.
    assert imported - {"botocore", "referencing"} == set(pins(ROOT / "handlers/batch_api/requirements.txt"))


def test_the_model_images_differ_in_nothing_but_their_names() -> None:
    mistral, llama = (
        [pair for pair in read_dockerfile(model).instructions if pair[0] != "LABEL"] for model in MODELS
    )
    assert [(word, arguments.replace("mistral", "llama")) for word, arguments in mistral] == llama


@pytest.mark.parametrize("handler", MODELS)
def test_a_model_image_is_built_on_a_pinned_worker_image_and_finds_our_code_first(handler: str) -> None:
    image = read_dockerfile(handler)
    assert image.arguments("ARG") == ["BASE_IMAGE=runpod/worker-v1-vllm:v2.11.1"]
    assert image.arguments("FROM") == ["${BASE_IMAGE}"]
    assert image.workdir.as_posix() == "/app"
    assert image.env["PYTHONPATH"] == "/app:/vllm-workspace"


@pytest.mark.parametrize("handler", MODELS)
def test_a_model_image_leaves_the_engine_and_all_around_it_to_its_base(handler: str) -> None:
    assert not OF_THE_BASE_IMAGE & set(pins(ROOT / "handlers" / handler / "requirements.txt"))
    assert " pip install --no-cache-dir --no-deps -r added.txt" in read_dockerfile(handler).installation


@pytest.mark.parametrize("handler", MODELS)
def test_a_model_image_keeps_the_folders_of_its_base_and_lets_the_engine_spawn(handler: str) -> None:
    env = read_dockerfile(handler).env
    assert not {"BASE_PATH", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} & set(env)
    assert env["VLLM_WORKER_MULTIPROCESSING_METHOD"] == "spawn"
    # A newer base starts its own server by an entry point.
    assert read_dockerfile(handler).arguments("ENTRYPOINT") == ["[]"]


def test_the_batch_image_is_built_on_a_pinned_python_and_not_run_as_root() -> None:
    image = read_dockerfile("batch_api")
    [base] = image.arguments("FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base)
    [user] = image.arguments("USER")
    assert int(user) > 0
    assert [word for word, _ in image.instructions][-2:] == ["USER", "CMD"]


def test_push_builds_all_three_images_before_it_pushes_any() -> None:
    answer = make_images("push", "--dry-run", "--tag", "1.2.3", REGISTRY="docker.io/you", TAG="other")
    assert answer.returncode == 0, answer.stderr
    commands = [shlex.split(line) for line in answer.stdout.splitlines()]
    names = [f"docker.io/you/llm-batch-{name}:1.2.3" for name in ("batch-api", "mistral", "llama")]
    assert [command[1] for command in commands] == ["build"] * 3 + ["push"] * 3
    assert [command[command.index("-t") + 1] for command in commands[:3]] == names
    assert [command[-1] for command in commands[3:]] == names


def test_an_image_carries_its_version_and_a_base_of_choice() -> None:
    answer = make_images(
        "images", "--dry-run", "--registry", "here/", "--base-image", "worker:9", TAG="1.2.3"
    )
    assert answer.returncode == 0, answer.stderr
    batch, *models = [shlex.split(line) for line in answer.stdout.splitlines()]
    assert "BASE_IMAGE=worker:9" not in batch
    for command in models:
        assert "BASE_IMAGE=worker:9" in command
    for command in (batch, *models):
        assert f"{LABEL}.version=1.2.3" in command
        assert any(word.startswith(f"{LABEL}.revision=") for word in command)
        assert command[command.index("-t") + 1].startswith("here/llm-batch-")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("push", "--dry-run"), "push needs a registry"),
        (("images", "--tag"), "--tag needs a value"),
        (("images", "--fast"), "images: unknown argument --fast"),
    ],
)
def test_a_build_that_cannot_be_meant_is_refused_in_one_line(arguments: tuple[str, ...], reason: str) -> None:
    answer = make_images(*arguments)
    assert answer.returncode == 1
    assert reason in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_the_sdk_is_not_shadowed_by_the_folder_of_the_same_name() -> None:
    assert (ROOT / "runpod").is_dir()
    assert not (ROOT / "runpod" / "__init__.py").exists()
    answer = run_python("import runpod; print(runpod.__version__, runpod.serverless.start.__name__)", ROOT)
    assert answer.stdout.split() == [pins(ROOT / "tests/requirements.txt")["runpod"], "start"], answer.stderr
