"""The images without Docker: each one's files and packages in folders of their own, and its handler run from there.

Real here are the COPY lines, .dockerignore, the RUN that installs, ENV and CMD. The base images are not: a stand-in
has the packages that matter, and model workers run the simulated engine (on Python 3.10 where there is one).
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.client import batch_client, make_requests
from tests.flow.cloud import FAST
from tests.images.dockerfile import HANDLERS, Dockerfile, read_dockerfile
from tests.images.environment import (
    BASE_PACKAGES,
    find_python_310,
    install_requirements,
    make_environment,
    packages,
)
from tests.images.layout import lay_out
from tests.local_cloud.cloud import local_cloud
from tests.local_cloud.settings import DEFAULT_HANDLERS, LocalSettings, Program
from tests.unit.project import pins

# Two environments are made, with some hundred packages each.
pytestmark = pytest.mark.timeout(420)

MODELS = ("mistral", "llama")
# Imports every module below a package and prints those that need what only the base image has.
IMPORT_ALL = """
import importlib, pkgutil
import handlers, shared
for package in (handlers, shared):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in ("jinja2", "torch", "transformers", "vllm"):
                raise
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """The folder of its programs, and its packages before and after the Dockerfile's RUN."""

    programs: Path
    before: dict[str, str]
    after: dict[str, str]


@dataclass(frozen=True, slots=True)
class Image:
    """One image laid out: `root` stands for its `/`, `workdir` is below it."""

    dockerfile: Dockerfile
    root: Path
    workdir: Path
    environment: Environment

    @property
    def env(self) -> dict[str, str]:
        """The ENV as a container would have it, and nothing of this process."""
        env = {
            **self.dockerfile.env,
            "PATH": f"{self.environment.programs}:/usr/bin:/bin",
            "HOME": str(self.root),
        }
        if path := env.get("PYTHONPATH"):
            env["PYTHONPATH"] = ":".join(f"{self.root}{entry}" for entry in path.split(":"))
        return env

    @property
    def program(self) -> Program:
        return Program(tuple(self.dockerfile.command), self.workdir, self.env)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.workdir, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )


def made(folder: Path, dockerfile: Dockerfile, workdir: Path) -> Environment:
    """The environment of an image: the batch image's from nothing, a model image's on the base's stand-in."""
    model = dockerfile.handler in MODELS
    python = {"python": found} if model and (found := find_python_310()) else {}
    programs = make_environment(folder, **python, base=BASE_PACKAGES if model else ())
    before = packages(programs)
    install_requirements(dockerfile, workdir, programs)
    return Environment(programs, before, packages(programs))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """All three, by handler. The models' requirements and RUN are the same: they share one environment."""
    folder = tmp_path_factory.mktemp("images")
    files = {handler: read_dockerfile(handler) for handler in HANDLERS}
    workdirs = {handler: lay_out(files[handler], folder / handler) for handler in HANDLERS}
    first, second = MODELS
    assert files[first].installation == files[second].installation
    assert pins(workdirs[first] / "requirements.txt") == pins(workdirs[second] / "requirements.txt")
    with ThreadPoolExecutor() as pool:
        making = {
            handler: pool.submit(made, folder / f"python-{handler}", files[handler], workdirs[handler])
            for handler in ("batch_api", first)
        }
    return {
        handler: Image(
            files[handler],
            folder / handler,
            workdirs[handler],
            making["batch_api" if handler == "batch_api" else first].result(),
        )
        for handler in HANDLERS
    }


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_image_holds_our_code_its_scripts_and_nothing_else(images: dict[str, Image], handler: str) -> None:
    image = images[handler]
    kinds = {path.suffix for path in image.workdir.rglob("*") if path.is_file()}
    assert kinds == {".py", ".lua", ".txt"}
    assert {path.name for path in image.workdir.iterdir() if path.is_dir()} == {"handlers", "shared"}


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_check_at_the_end_of_a_build_passes(images: dict[str, Image], handler: str) -> None:
    image = images[handler]
    [check] = [run for run in image.dockerfile.arguments("RUN") if " -c " in run and "pip" not in run]
    answer = image.run("bash", "-c", check)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("handler", HANDLERS)
def test_every_module_of_an_image_finds_its_packages(images: dict[str, Image], handler: str) -> None:
    image = images[handler]
    answer = image.run(image.dockerfile.command[0], "-c", IMPORT_ALL)
    assert answer.returncode == 0, answer.stderr


def test_the_batch_image_has_exactly_the_pinned_versions(images: dict[str, Image]) -> None:
    image = images["batch_api"]
    lock = pins(image.workdir / "constraints.txt")
    before, after = image.environment.before, image.environment.after
    added = {name: version for name, version in after.items() if name not in before}
    assert added == {name: lock.get(name) for name in added}


def test_a_model_image_changes_nothing_of_its_base_but_the_sdk(images: dict[str, Image]) -> None:
    image = images["mistral"]
    before, after = image.environment.before, image.environment.after
    assert {name for name in before if after.get(name) != before[name]} == {"runpod"}
    wanted = pins(image.workdir / "requirements.txt")
    assert after["runpod"] == wanted["runpod"]
    assert {name: after[name] for name in after if name not in before} == {
        name: version for name, version in wanted.items() if name not in before
    }


async def test_a_batch_runs_through_what_the_three_images_hold(
    images: dict[str, Image], tmp_path: Path
) -> None:
    endpoints = {name: images[module.split(".")[1]] for name, module in DEFAULT_HANDLERS.items()}
    settings = LocalSettings(
        programs={name: image.program for name, image in endpoints.items()},
        # Inputs and outputs go through S3, so that its client is used as well.
        env={**FAST, "PAYLOAD_INLINE_BYTES": "256"},
        log_dir=tmp_path,
    )
    requests = [
        {**request, "metadata": {"model_hint": ("mistral", "llama-70b")[number % 2]}}
        for number, request in enumerate(make_requests(100))
    ]
    async with local_cloud(settings) as cloud:
        for name, workers in cloud.workers().items():
            [worker] = workers
            assert psutil.Process(int(str(worker["pid"]))).cwd() == str(endpoints[name].workdir)
        async with batch_client(cloud.batch_url, cloud.api_key, cloud.control_url) as client:
            batch = await client.call("create", stage="email", requests=requests)
            status = await client.wait(batch["id"])
            lines = await client.lines(batch["id"])
    assert status["counts"]["succeeded"] == len(requests)
    assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in requests]
    assert all(line["status"] == "succeeded" and line["message"]["content"][0]["text"] for line in lines)
