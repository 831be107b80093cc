"""The Python environment of an image: an empty one, or a stand-in for its base, and then the Dockerfile's own RUN."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.images.dockerfile import Dockerfile

INSTALL_TIMEOUT_S = 240.0
# Of runpod/worker-v1-vllm:v2.11.1 (24 November 2025, Python 3.10) what the SDK, vLLM's server and we have in common,
# at the versions of that day. The rest of it is vLLM, torch and what they need.
BASE_PACKAGES = (
    "aiohttp==3.13.2",
    "click==8.3.1",
    "fastapi[standard]==0.121.3",
    "jsonschema==4.25.1",
    "prometheus-fastapi-instrumentator==7.1.0",
    "psutil==7.1.3",
    "pydantic==2.12.4",
    "regex==2025.11.3",
    "runpod==1.8.1",
    "starlette==0.50.0",
)


def find_python_310() -> str | None:
    """The Python of the base image, where there is one: on the PATH or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for candidate in ("python3.10", *map(str, sorted(pyenv.glob("versions/3.10.*/bin/python")))):
        # A name on the PATH may be a shim without a Python behind it.
        if shutil.which(candidate) and _runs(candidate, "-c", "import ensurepip, venv"):
            return candidate
    return None


def make_environment(folder: Path, python: str = sys.executable, base: tuple[str, ...] = ()) -> Path:
    """A fresh environment with the packages `base`, and no others; returns the folder of its programs."""
    _finish([python, "-m", "venv", str(folder)])
    if base:
        _finish([str(folder / "bin/python"), "-m", "pip", "install", "-q", *base])
    return folder / "bin"


def install_requirements(dockerfile: Dockerfile, workdir: Path, programs: Path) -> None:
    """Runs the Dockerfile's own installation in the laid-out image."""
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    _finish(["bash", "-o", "pipefail", "-c", dockerfile.installation], cwd=workdir, env=env)


def packages(programs: Path) -> dict[str, str]:
    """What is installed: normal name -> version."""
    listed = _finish([str(programs / "python"), "-m", "pip", "list", "--format=freeze"])
    pairs = [line.split("==") for line in listed.splitlines()]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def _runs(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _finish(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    ended = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
    )
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout
