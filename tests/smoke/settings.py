"""What a smoke, load or platform run is told: the configuration file, and the environment over it.

Secrets come from the environment alone and are kept apart, so that the report can mask every one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

DEFAULT_FILE = Path(__file__).resolve().parent.parent / "test_config.yaml"

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class BadSettings(Exception):
    """Every fault of the file and of the environment, one a line; never the value of a secret."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceSection(Section):
    batch_url: str = ""
    mistral_url: str = ""
    llama_url: str = ""


class SmokeSection(Section):
    wait_s: Positive
    poll_s: Positive
    requests: Annotated[int, Field(ge=4)]
    cancel_requests: Count
    stages: dict[str, str]


class Targets(Section):
    median_s: Positive
    p95_s: Positive
    requests_per_s: Positive


class ModelLoad(Section):
    single_calls: Count
    at_once: Count
    latency_requests: Count
    requests: Count
    targets: Targets


class LeadStage(Section):
    name: str
    target_minutes: Positive
    max_tokens: Count
    system: str
    prompt: str


class LeadRun(Section):
    file: Path
    count: Count
    stages: list[LeadStage]


class LoadSection(Section):
    engine: Literal["auto", "real", "simulated"]
    wait_s: Positive
    poll_s: Positive
    max_tokens: Count
    prompt: str
    models: dict[str, ModelLoad]
    leads: LeadRun


class VerifySection(Section):
    warm_up_s: Positive
    limit_s: Positive
    poll_s: Positive
    job_s: Positive
    webhook_s: Positive
    execution_timeout_ms: Count
    ttl_ms: Count
    long_job: dict[str, Any]


class ConfigFile(Section):
    service: ServiceSection
    smoke: SmokeSection
    load: LoadSection
    verify: VerifySection


# What stands for a model in the file's section `service` and in the environment.
MODEL_VARIABLES = {"mistral": "MISTRAL_BASE_URL", "llama-70b": "LLAMA_BASE_URL"}
SECRETS = (
    "RUNPOD_API_KEY",
    "UPSTASH_REDIS_REST_TOKEN",
    "WEBHOOK_TOKEN",
    "S3_SECRET_ACCESS_KEY",
    "S3_ACCESS_KEY_ID",
)
PLAIN = ("UPSTASH_REDIS_REST_URL", "S3_ENDPOINT_URL", "S3_BUCKET", "S3_REGION")


@dataclass(frozen=True)
class Settings:
    """`variables`: what may be missing, by its name in the environment; only those that are set are in it."""

    batch_url: str
    api_key: str
    model_urls: Mapping[str, str]
    variables: Mapping[str, str]
    file: ConfigFile

    @property
    def secrets(self) -> list[str]:
        return [self.variables[name] for name in SECRETS if name in self.variables]


def read_settings(path: Path, env: Mapping[str, str]) -> Settings:
    """The settings. Raises BadSettings with all that is wrong or missing."""
    file = _read_file(path)
    service = file.service
    urls = {
        "LOCAL_BATCH_URL": service.batch_url,
        MODEL_VARIABLES["mistral"]: service.mistral_url,
        MODEL_VARIABLES["llama-70b"]: service.llama_url,
    }
    variables = {name: value for name in (*SECRETS, *PLAIN) if (value := env.get(name, "").strip())}
    for name, default in urls.items():
        if value := env.get(name, "").strip() or default:
            variables[name] = value.rstrip("/")
    faults = [f"{name} is not set" for name in ("LOCAL_BATCH_URL", "RUNPOD_API_KEY") if name not in variables]
    faults += [
        f"{name} must be an http(s) URL"
        for name, value in variables.items()
        if name.endswith("_URL") and not value.startswith(("http://", "https://"))
    ]
    if faults:
        raise BadSettings("\n".join(faults))
    models = {model: variables[name] for model, name in MODEL_VARIABLES.items() if name in variables}
    return Settings(variables["LOCAL_BATCH_URL"], variables["RUNPOD_API_KEY"], models, variables, file)


def _read_file(path: Path) -> ConfigFile:
    try:
        return ConfigFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise BadSettings(f"{path}: not YAML: {error}") from None
    except ValidationError as error:
        faults = [
            f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        raise BadSettings("\n".join(faults)) from None
