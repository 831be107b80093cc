"""The deployment's data: every definition and variant is what RunPod accepts and what the models' cards say."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from capacity import capacity, load_hardware
from definitions import load_deployment, load_variants
from deploy import main
from endpoint_body import checked_body
from failures import RefusedValue
from service_env import ENGINE_VARIABLES, setting_names, slots_of
from terminal import Terminal

from handlers.catalog import CARDS
from tests.deploy_cloud.schemas import CREATE_ENDPOINT, CREATE_VOLUME, faults
from tests.unit.project import ROOT

VARIANTS = [(endpoint, name) for endpoint, names in load_variants().items() for name in names]
CHOICES: list[dict[str, str]] = [{}, *({endpoint: name} for endpoint, name in VARIANTS)]


def ids(choice: dict[str, str]) -> str:
    return "-".join(choice.values()) or "as-defined"


def planned(*arguments: str) -> dict[str, dict[str, Any]]:
    """What `--dry-run` prints for an empty account: name -> the body of its create."""
    out = io.StringIO()
    code = main(
        ["--dry-run", "--env-file=/dev/null", *arguments],
        {"REGISTRY": "docker.io/you"},
        Terminal(out, io.StringIO(), None),
    )
    assert code == 0
    bodies: dict[str, dict[str, Any]] = {}
    name = ""
    for line in out.getvalue().splitlines():
        if not line.startswith(" "):
            name = line.split()[2]
            bodies[name] = {}
        elif not line.strip().startswith("("):
            field, _, value = line.strip().partition(": ")
            bodies[name][field] = json.loads(value)
    return bodies


@pytest.mark.parametrize("choice", CHOICES, ids=ids)
def test_what_a_dry_run_prints_is_what_the_documented_schema_accepts(choice: dict[str, str]) -> None:
    bodies = planned(*(f"--variant={endpoint}={name}" for endpoint, name in choice.items()))
    assert faults(CREATE_VOLUME, bodies.pop("llm-batch-models")) == []
    del bodies["inbox:"]
    assert len(bodies) == 3
    for name, body in bodies.items():
        assert body["name"] == name
        assert faults(CREATE_ENDPOINT, body) == []


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_endpoints_run_the_models_of_the_cards(card: Any) -> None:
    deployment = load_deployment({})
    [definition] = [d for d in deployment.endpoints.values() if d.model and d.model.name == card.name]
    env = definition.body["env"]
    assert env["MODEL_NAME"] == card.repository
    assert int(env["MAX_MODEL_LEN"]) == card.context_tokens
    assert int(env["TENSOR_PARALLEL_SIZE"]) == definition.body["gpu"]["count"] == card.gpus
    assert definition.base_url_variable == f"{card.env_prefix}_BASE_URL"


@pytest.mark.parametrize("choice", CHOICES, ids=ids)
def test_tensor_parallel_uses_all_gpus_of_a_worker(choice: dict[str, str]) -> None:
    for definition in load_deployment(choice).endpoints.values():
        if definition.model:
            size = int(definition.body["env"]["TENSOR_PARALLEL_SIZE"])
            assert size == definition.body["gpu"]["count"]


@pytest.mark.parametrize(("endpoint", "name"), VARIANTS)
def test_a_variants_slots_fit_its_memory_and_its_seconds_are_the_arithmetics(
    endpoint: str, name: str
) -> None:
    deployment = load_deployment({endpoint: name})
    slots = slots_of(endpoint, deployment)
    reckoned = capacity(deployment.endpoints[endpoint], slots, load_hardware())
    assert reckoned.slots == slots
    prefix = {"mistral": "MISTRAL", "llama": "LLAMA"}[endpoint]
    assert float(deployment.service_env[f"{prefix}_REQUEST_S"]) == pytest.approx(reckoned.request_s, rel=0.1)


@pytest.mark.parametrize("choice", CHOICES, ids=ids)
def test_the_engines_variables_are_data_and_the_services_are_settings(choice: dict[str, str]) -> None:
    deployment = load_deployment(choice)
    assert deployment.service_env.keys() <= setting_names() - ENGINE_VARIABLES
    platform = {"RUNPOD_INIT_TIMEOUT", "RUNPOD_MIN_MEMORY_GB"}
    for definition in deployment.endpoints.values():
        assert definition.body["env"].keys() <= ENGINE_VARIABLES | platform


def body(**changes: Any) -> dict[str, Any]:
    fields = {
        "name": "llm-batch-mistral",
        "type": "QUEUE",
        "image": "docker.io/you/llm-batch-mistral:1",
        "gpu": {"pools": ["ADA_24"], "count": 1},
        "workers": {"min": 1, "max": 10, "idleTimeout": 60},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 1},
        "timeout": 600000,
        "flashboot": "FLASHBOOT",
        "disk": 20,
        "env": {"HF_TOKEN": "hf_very_secret"},
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def test_a_good_body_is_accepted() -> None:
    assert faults(CREATE_ENDPOINT, checked_body("mistral", body()).request()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": {"min": 1, "max": 3, "idleTimeout": 0}}, "workers.idleTimeout.*or equal to 1 .*is 0"),
        ({"workers": {"min": 1, "max": 3, "idleTimeout": 3601}}, "workers.idleTimeout.*or equal to 3600"),
        ({"workers": {"min": 4, "max": 3}}, "min .4. must not be above max .3."),
        ({"bogus": 1}, "bogus"),
        ({"gpu": None}, "exactly one of gpu and cpu"),
        ({"cpu": [{"id": "cpu5c", "vcpuCount": 2}]}, "exactly one of gpu and cpu"),
        ({"gpu": None, "cpu": [{"id": "cpu5c", "vcpuCount": 6}]}, "vcpuCount: must be a power of two"),
        ({"gpu": {"pools": [], "count": 1}}, "gpu.pools"),
        ({"gpu": {"pools": ["ADA_24"], "count": 0}}, "gpu.count.*or equal to 1"),
        ({"scaling": {"type": "REQUEST_COUNT", "requestCount": 4}}, "idleTimeout does not go with"),
        ({"scaling": {"type": "QUEUE_DELAY", "queueDelay": 0.1}}, "scaling.queueDelay.*or equal to 0.5"),
        ({"image": None}, "image: Field required"),
        ({"image": ""}, "image"),
        ({"timeout": 1000}, "timeout.*or equal to 5000"),
        ({"flashboot": "ON"}, "flashboot.*OFF"),
        ({"disk": 0}, "disk"),
    ],
)
def test_a_value_that_runpod_refuses_is_named_with_its_limit(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedValue, match=f"(?s)mistral: .*{said}"):
        checked_body("mistral", body(**changes))


def test_a_refused_environment_does_not_show_its_values() -> None:
    with pytest.raises(RefusedValue) as caught:
        checked_body("mistral", body(env={"HF_TOKEN": 12345678}))
    assert "env.HF_TOKEN" in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_run_by_path_the_folder_does_not_shadow_the_sdk() -> None:
    script = "import sys; sys.argv = ['deploy', '--costs']; import deploy, runpod; print(runpod.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "runpod", capture_output=True, text=True, check=True
    ).stdout
    assert "site-packages" in found


def test_deploy_runs_by_path_from_anywhere(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "runpod/deploy.py", "--costs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.startswith("| variant |")
