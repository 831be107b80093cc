"""The environment that every endpoint gets: the service's settings, taken from the shell or a file.

Which variables there are is asked of the service's own settings, so a new setting needs no change here; and what those
refuse is refused here, before a worker could crash-loop on it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from definitions import FOLDER, Deployment

# The service's packages lie beside this folder. At the end of the path they can't shadow anything.
sys.path.append(str(FOLDER.parent))

from handlers.catalog import CARDS
from shared.config import load_settings
from shared.errors import ConfigError

KEY = "RUNPOD_API_KEY"
# A key with fewer rights for the endpoints than the one that deploys.
SERVICE_KEY = "RUNPOD_SERVICE_KEY"
REGISTRY_ID = "RUNPOD_REGISTRY_ID"
WEBHOOK_TOKEN = "WEBHOOK_TOKEN"  # noqa: S105 - a variable's name
# What an endpoint's engine runs differs by endpoint, so it is data in endpoints.json and never taken from a shell.
ENGINE_VARIABLES = frozenset(
    {
        *("MODEL_NAME", "MODEL_REVISION", "MAX_MODEL_LEN", "GPU_MEMORY_UTILIZATION", "TENSOR_PARALLEL_SIZE"),
        *("QUANTIZATION", "DTYPE", "KV_CACHE_DTYPE", "MAX_NUM_SEQS", "ENABLE_PREFIX_CACHING", "VLLM_ARGS"),
    }
)
HIDDEN = "***"
SECRET_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
# Stands for what is known only after the deployment: it is an address that the settings accept.
UNKNOWN_URL = "https://api.runpod.ai/v2/"


class _Asked(dict[str, str]):
    """Remembers the variables that were asked for. The S3 settings are read only where some are set."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names.add(name)
        return "https://any" if name.startswith("S3_") else default


def setting_names() -> frozenset[str]:
    """Every variable that the service's settings read."""
    asked = _Asked()
    with suppress(ConfigError):
        load_settings(asked, CARDS)
    return frozenset(asked.names)


def is_secret(name: str) -> bool:
    return any(word in name for word in SECRET_WORDS)


def base_url_variables(deployment: Deployment) -> dict[str, str]:
    """Variable -> the endpoint whose address it holds."""
    return {d.base_url_variable: name for name, d in deployment.endpoints.items() if d.base_url_variable}


def service_env(
    environment: Mapping[str, str],
    deployment: Deployment,
    base_urls: Mapping[str, str],
    webhook_token: str,
) -> dict[str, str]:
    """The variables of all endpoints. `base_urls` by endpoint, as far as they are known. What `environment` sets
    wins over a variant's values."""
    computed = {*base_url_variables(deployment), WEBHOOK_TOKEN, "RUNPOD_POD_ID", KEY}
    taken = setting_names() - computed - ENGINE_VARIABLES
    env = dict(deployment.service_env)
    env |= {name: environment[name] for name in sorted(taken) if environment.get(name, "").strip()}
    env[KEY] = environment.get(SERVICE_KEY) or environment.get(KEY, "")
    for variable, endpoint in base_url_variables(deployment).items():
        if endpoint in base_urls:
            env[variable] = base_urls[endpoint]
    if webhook_token:
        env[WEBHOOK_TOKEN] = webhook_token
    return env


def faults(environment: Mapping[str, str], deployment: Deployment) -> list[str]:
    """What is missing or wrong in `environment`, one line each; no values."""
    urls = {name: UNKNOWN_URL + name for name in deployment.endpoints}
    found = []
    try:
        load_settings(service_env(environment, deployment, urls, ""), CARDS)
    except ConfigError as error:
        found += error.faults
    secrets = sorted({name for d in deployment.endpoints.values() for name in d.secrets})
    return found + [f"{name} is required" for name in secrets if not environment.get(name, "").strip()]


def slots_of(endpoint: str, deployment: Deployment) -> int:
    """How many requests at once the service reckons with on one worker: a variant's value, or the model's card."""
    model = deployment.endpoints[endpoint].model
    card = next(card for card in CARDS if model and card.name == model.name)
    return int(deployment.service_env.get(f"{card.env_prefix}_SLOTS", card.slots))


def read_env_file(path: Path) -> dict[str, str]:
    """Lines of NAME=VALUE; blank lines, comments, `export` and quotes around a value are allowed."""
    values = {}
    for line in path.read_text("utf-8").splitlines():
        name, mark, value = line.strip().removeprefix("export ").partition("=")
        if mark and not name.startswith("#"):
            values[name.strip()] = value.strip().strip("\"'")
    return values
