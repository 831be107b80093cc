"""The deployment as data: endpoints.json (what is deployed) and variants.json (other models and GPUs for it)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from failures import MissingSettings, RefusedValue
from pydantic import BaseModel, ConfigDict, Field, ValidationError

FOLDER = Path(__file__).resolve().parent


class Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Volume(Data):
    """A network volume; `size` in GB. RunPod takes 10 to 4096, and never shrinks one."""

    name: str = Field(min_length=1)
    size: int = Field(ge=10, le=4096)
    data_center: str = Field(min_length=1)


class Schedule(Data):
    """The timer that RunPod lacks: `id` is the schedule's name at QStash."""

    id: str
    cron: str


class Model(Data):
    """What the cost page reckons with. `weights_gb` as loaded, summed over the worker's GPUs; `precision` of the
    arithmetic (fp16 or fp8); `gpu` is RunPod's name of the type, as in prices.json."""

    name: str
    gpu: str
    weights_gb: float
    precision: str


class Definition(Data):
    """One endpoint. `body` are fields of RunPod's v2 API, less the image, the volume and what the service needs in
    `env`; `image` is the image's name without registry and tag; `secrets` are variables handed on if they are set."""

    image: str
    base_url_variable: str | None = None
    volume: bool = False
    secrets: tuple[str, ...] = ()
    model: Model | None = None
    body: dict[str, Any]


class Variant(Data):
    """Replaces parts of a definition. `env` and `workers` are merged, the rest of `body` is replaced;
    `service_env` goes to every endpoint, because every process cuts and hands out shards of every model."""

    about: str
    model: Model
    body: dict[str, Any]
    service_env: dict[str, str] = {}


class Deployment(Data):
    """All that is deployed, with the variants chosen. Endpoints by short name."""

    volume: Volume
    schedule: Schedule
    endpoints: dict[str, Definition]
    service_env: dict[str, str] = {}


def load_deployment(chosen: Mapping[str, str], folder: Path = FOLDER) -> Deployment:
    """The definitions with `chosen` variants (endpoint -> variant). Raises RefusedValue for broken files and
    MissingSettings for a variant that does not exist."""
    try:
        deployment = Deployment.model_validate(read_json(folder / "endpoints.json"))
        variants = load_variants(folder)
    except ValidationError as error:
        raise RefusedValue(f"the definitions are broken: {error}") from None
    endpoints, service_env = dict(deployment.endpoints), dict(deployment.service_env)
    for endpoint, name in chosen.items():
        known = variants.get(endpoint, {})
        if name not in known:
            offered = ", ".join(f"{owner}={each}" for owner, all_ in variants.items() for each in all_)
            raise MissingSettings(f"there is no variant {endpoint}={name}; there are {offered}")
        endpoints[endpoint] = _with_variant(endpoints[endpoint], known[name])
        service_env |= known[name].service_env
    return deployment.model_copy(update={"endpoints": endpoints, "service_env": service_env})


def load_variants(folder: Path = FOLDER) -> dict[str, dict[str, Variant]]:
    """Variants by endpoint and name."""
    data = read_json(folder / "variants.json")
    return {
        endpoint: {name: Variant.model_validate(item) for name, item in items.items()}
        for endpoint, items in data.items()
    }


def _with_variant(definition: Definition, variant: Variant) -> Definition:
    body = dict(definition.body)
    for name, value in variant.body.items():
        body[name] = {**body[name], **value} if name in ("env", "workers") else value
    return definition.model_copy(update={"body": body, "model": variant.model})


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
