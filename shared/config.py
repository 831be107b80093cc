"""Settings: parsed once, at start, from a mapping (the environment) into one frozen object.

Nothing else reads the environment. Every fault is reported at once and names its variable; secrets are never shown.
README lists every variable.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from shared.core.cards import ModelCard
from shared.core.routing import DEFAULT_STAGES
from shared.core.structured import schema_fault
from shared.errors import ConfigError

Value = TypeVar("Value")

REQUESTS_MAX = 1_000_000
BATCH_BYTES_MAX = 2 * 1024**3


@dataclass(frozen=True)
class S3Config:
    endpoint_url: str
    bucket: str
    access_key_id: str
    secret_access_key: SecretStr
    region: str


@dataclass(frozen=True)
class VllmConfig:
    """What the environment says of one model worker's engine, over its model card. `flags` are words of `vllm serve`,
    made of single variables; `args` is VLLM_ARGS as it stands."""

    model: str | None
    revision: str | None
    served_name: str | None
    hub_cache: str
    args: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """All settings of one process. Times are in the unit of their name; `base_urls` are endpoint URLs by model."""

    runpod_api_key: SecretStr
    redis_url: str
    redis_token: SecretStr
    webhook_token: SecretStr | None
    s3: S3Config | None
    cards: Mapping[str, ModelCard]
    base_urls: Mapping[str, str]
    stages: Mapping[str, str]
    stage_schemas: Mapping[str, Mapping[str, Any]]
    engine: str
    vllm: VllmConfig
    sim_ttft_ms: float
    sim_tpot_ms: float
    sim_slots: int | None
    inline_bytes: int
    page_bytes: int
    max_requests: int
    max_batch_bytes: int
    expires_in_s: float
    retain_s: float
    tick_s: float
    beat_s: float
    lease_s: float
    beat_stale_s: float
    claim_s: float
    gone_grace_s: float
    max_deaths: int
    drain_s: float
    worker_name: str
    log_level: str


class _Reader:
    """Reads variables and collects faults, so that all of them are told together."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.faults: list[str] = []

    def get(self, name: str) -> str | None:
        return self._env.get(name, "").strip() or None

    def require(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            self.faults.append(f"{name} is required")
        return value or ""

    def url(self, name: str, value: str) -> str:
        if value and not _is_http(value):
            self.faults.append(f"{name} must be an http(s) URL")
        return value.rstrip("/")

    def _number(
        self, name: str, default: Value, kind: Callable[[str], Value], least: float, most: float = inf
    ) -> Value:
        text = self.get(name)
        if text is None:
            return default
        try:
            value = kind(text)
            if not least <= float(text) <= most or float(text) == inf:
                raise ValueError
        except ValueError:
            bound = "" if most == inf else f" and at most {most:,.0f}"
            self.faults.append(f"{name} must be a number, at least {least:g}{bound}")
            return default
        return value

    def seconds(self, name: str, default: float, least: float = 0.01) -> float:
        return self._number(name, default, float, least)

    def count(self, name: str, default: int, least: int = 1, most: float = inf) -> int:
        return self._number(name, default, int, least, most)

    def switch(self, name: str) -> bool | None:
        text = (self.get(name) or "").lower()
        if text not in ("", "1", "true", "0", "false"):
            self.faults.append(f"{name} must be true or false")
        return text in ("1", "true") if text else None

    def optional_count(self, name: str) -> int | None:
        return self.count(name, 1) if self.get(name) else None


def load_settings(env: Mapping[str, str], cards: Sequence[ModelCard]) -> Settings:
    """Settings from `env`, for a deployment of `cards`. Raises ConfigError with every fault."""
    read = _Reader(env)
    concurrency = read.optional_count("WORKER_CONCURRENCY")
    settings = Settings(
        runpod_api_key=SecretStr(read.require("RUNPOD_API_KEY")),
        redis_url=read.url("UPSTASH_REDIS_REST_URL", read.require("UPSTASH_REDIS_REST_URL")),
        redis_token=SecretStr(read.require("UPSTASH_REDIS_REST_TOKEN")),
        webhook_token=SecretStr(token) if (token := read.get("WEBHOOK_TOKEN")) else None,
        s3=_s3(read),
        cards={card.name: _tuned(read, card, concurrency) for card in cards},
        base_urls={card.name: _base_url(read, card) for card in cards},
        stages=(stages := _stages(read, {card.name for card in cards})),
        stage_schemas=_stage_schemas(read, stages),
        engine=_engine(read),
        vllm=_vllm(read),
        sim_ttft_ms=read.seconds("SIM_TTFT_MS", 50.0, 0.0),
        sim_tpot_ms=read.seconds("SIM_TPOT_MS", 5.0, 0.0),
        sim_slots=read.optional_count("SIM_SLOTS"),
        inline_bytes=read.count("PAYLOAD_INLINE_BYTES", 256 * 1024),
        page_bytes=read.count("RESULTS_PAGE_BYTES", 8 * 1024 * 1024, 1024),
        max_requests=read.count("MAX_REQUESTS", 100_000, most=REQUESTS_MAX),
        max_batch_bytes=read.count("MAX_BATCH_BYTES", 256 * 1024 * 1024, most=BATCH_BYTES_MAX),
        expires_in_s=read.seconds("BATCH_EXPIRES_S", 24 * 3600.0, 1),
        retain_s=read.seconds("RESULTS_RETAIN_S", 24 * 3600.0, 60),
        tick_s=read.seconds("TICK_S", 1.0),
        beat_s=read.seconds("BEAT_S", 2.0),
        lease_s=read.seconds("LEASE_S", 15.0),
        beat_stale_s=read.seconds("BEAT_STALE_S", 30.0),
        claim_s=read.seconds("CLAIM_S", 30.0),
        gone_grace_s=read.seconds("GONE_GRACE_S", 60.0),
        max_deaths=read.count("MAX_DEATHS", 2),
        drain_s=read.seconds("DRAIN_S", 8.0, 0.0),
        worker_name=read.get("RUNPOD_POD_ID") or "local",
        log_level=_log_level(read),
    )
    if settings.beat_stale_s < 3 * settings.beat_s:
        read.faults.append("BEAT_STALE_S must be at least three times BEAT_S")
    ids = [url.rpartition("/")[2] for url in settings.base_urls.values() if url]
    if len(set(ids)) < len(ids):
        read.faults.append("every model needs an endpoint of its own: two base URLs end alike")
    if read.faults:
        raise ConfigError(read.faults)
    return settings


def _s3(read: _Reader) -> S3Config | None:
    names = ("S3_ENDPOINT_URL", "S3_BUCKET", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")
    if not any(read.get(name) for name in names):
        return None
    url, bucket, key_id, secret = (read.require(name) for name in names)
    region = read.get("S3_REGION") or "us-east-1"
    return S3Config(read.url("S3_ENDPOINT_URL", url), bucket, key_id, SecretStr(secret), region)


def _base_url(read: _Reader, card: ModelCard) -> str:
    name = f"{card.env_prefix}_BASE_URL"
    return read.url(name, read.require(name))


def _tuned(read: _Reader, card: ModelCard, concurrency: int | None) -> ModelCard:
    """A card with what a deployment measured on its own GPUs."""
    prefix = card.env_prefix
    return replace(
        card,
        slots=read.count(f"{prefix}_SLOTS", card.slots),
        request_s=read.seconds(f"{prefix}_REQUEST_S", card.request_s),
        shard_requests=read.count(f"{prefix}_SHARD_REQUESTS", card.shard_requests),
        fixed_concurrency=concurrency,
    )


def _is_http(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _log_level(read: _Reader) -> str:
    level = (read.get("LOG_LEVEL") or "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        read.faults.append("LOG_LEVEL must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return level


def _engine(read: _Reader) -> str:
    name = read.get("ENGINE") or "vllm"
    if name not in ("vllm", "simulated"):
        read.faults.append("ENGINE must be vllm or simulated")
    return name


# RunPod's vLLM worker has the same names.
_VLLM_VALUES = {
    "MODEL_REVISION": "--revision",
    "TOKENIZER_NAME": "--tokenizer",
    "MAX_MODEL_LEN": "--max-model-len",
    "GPU_MEMORY_UTILIZATION": "--gpu-memory-utilization",
    "TENSOR_PARALLEL_SIZE": "--tensor-parallel-size",
    "PIPELINE_PARALLEL_SIZE": "--pipeline-parallel-size",
    "QUANTIZATION": "--quantization",
    "DTYPE": "--dtype",
    "KV_CACHE_DTYPE": "--kv-cache-dtype",
    "MAX_NUM_SEQS": "--max-num-seqs",
    "MAX_NUM_BATCHED_TOKENS": "--max-num-batched-tokens",
    "SEED": "--seed",
}
_VLLM_SWITCHES = {
    "ENABLE_PREFIX_CACHING": "enable-prefix-caching",
    "ENFORCE_EAGER": "enforce-eager",
    "TRUST_REMOTE_CODE": "trust-remote-code",
}


def _vllm(read: _Reader) -> VllmConfig:
    flags: list[str] = []
    for name, flag in _VLLM_VALUES.items():
        if value := read.get(name):
            flags += [flag, value]
    for name, switch in _VLLM_SWITCHES.items():
        if (on := read.switch(name)) is not None:
            flags.append(f"--{switch}" if on else f"--no-{switch}")
    return VllmConfig(
        model=read.get("MODEL_NAME"),
        revision=read.get("MODEL_REVISION"),
        served_name=read.get("OPENAI_SERVED_MODEL_NAME_OVERRIDE"),
        hub_cache=read.get("HF_HUB_CACHE")
        or f"{read.get('BASE_PATH') or '/runpod-volume'}/huggingface-cache/hub",
        args=_words(read, "VLLM_ARGS"),
        flags=tuple(flags),
    )


def _words(read: _Reader, name: str) -> str:
    text = read.get(name) or ""
    try:
        shlex.split(text)
    except ValueError as error:
        read.faults.append(f"{name} can't be split into words: {error}")
    return text


def _stages(read: _Reader, models: set[str]) -> Mapping[str, str]:
    """`STAGES`, a JSON object of stage to model, added to the four stages that everybody has."""
    text = read.get("STAGES")
    try:
        added = json.loads(text) if text else {}
    except ValueError:
        added = None
    if not isinstance(added, dict) or not all(isinstance(model, str) for model in added.values()):
        read.faults.append("STAGES must be a JSON object of stage to model name")
        return DEFAULT_STAGES
    stages = {**DEFAULT_STAGES, **added}
    for stage, model in stages.items():
        if model not in models:
            read.faults.append(f"STAGES: {stage} names the unknown model {model!r}")
    return stages


def _stage_schemas(read: _Reader, stages: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]]:
    """`STAGE_SCHEMAS`, a JSON object of stage to JSON Schema."""
    text = read.get("STAGE_SCHEMAS")
    try:
        schemas = json.loads(text) if text else {}
    except ValueError:
        schemas = None
    if not isinstance(schemas, dict) or not all(isinstance(schema, dict) for schema in schemas.values()):
        read.faults.append("STAGE_SCHEMAS must be a JSON object of stage to JSON Schema")
        return {}
    for stage, schema in schemas.items():
        if stage not in stages:
            read.faults.append(f"STAGE_SCHEMAS: {stage!r} is no stage")
        if fault := schema_fault(schema):
            read.faults.append(f"STAGE_SCHEMAS: {stage}: {fault}")
    return schemas
