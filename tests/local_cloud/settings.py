"""The local cloud's own settings, parsed once from the environment (LOCAL_*)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_HANDLERS: dict[str, str] = {
    "batch-api": "handlers.batch_api.handler",
    "mistral": "handlers.mistral.handler",
    "llama": "handlers.llama.handler",
}
S3_SERVERS = ("moto", "rclone")
# A model has to be loaded, on machines without a GPU too.
VLLM_START_TIMEOUT_S = 300.0


class BadSetting(ValueError):
    """A LOCAL_* variable that cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a worker runs instead of a module of this repository: an image's command, working folder and environment."""

    command: tuple[str, ...]
    folder: Path
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What can be chosen.

    `workers`: processes per endpoint. `handlers`: the module each endpoint's workers run. `services`: whether Redis
    and S3 are started as well. `env`: variables of the workers, over the inherited environment. `programs`: endpoints
    whose workers run something else, and inherit nothing. `models`: what a real engine loads instead of its card's
    model, by endpoint: a folder, or a repository's name. `s3`: one of S3_SERVERS. `failpoints`: whether the faults
    include crashes of the workers that run a module, at named moments.
    """

    workers: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(DEFAULT_HANDLERS, 1))
    handlers: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_HANDLERS))
    programs: Mapping[str, Program] = field(default_factory=dict)
    services: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    engine: str = "simulated"
    models: Mapping[str, str] = field(default_factory=dict)
    seed: str = "0"
    s3: str = "moto"
    log_dir: Path | None = None
    webhook_delays_s: tuple[float, ...] = (0.0, 5.0, 20.0)
    ping_interval_ms: int = 2_000
    ping_grace_s: float = 10.0
    drain_s: float = 30.0
    start_timeout_s: float = 60.0
    min_execution_timeout_ms: int = 5_000
    rate_limited: bool = False
    failpoints: bool = False


def parse_settings(environ: Mapping[str, str]) -> LocalSettings:
    """Settings from LOCAL_* variables; unset ones keep their defaults. Raises BadSetting."""
    plain = LocalSettings()
    engine = environ.get("LOCAL_ENGINE", plain.engine)
    start_timeout_s = VLLM_START_TIMEOUT_S if engine == "vllm" else plain.start_timeout_s
    log_dir = environ.get("LOCAL_LOG_DIR")
    delays = environ.get("LOCAL_WEBHOOK_DELAYS_S")
    ping_interval_ms = int(_number(environ, "LOCAL_PING_INTERVAL_MS", plain.ping_interval_ms))
    if ping_interval_ms < 1000:
        raise BadSetting("LOCAL_PING_INTERVAL_MS must be at least 1000: the SDK counts in whole seconds")
    s3 = environ.get("LOCAL_S3") or plain.s3
    if s3 not in S3_SERVERS:
        raise BadSetting(f"LOCAL_S3: {s3!r} is not one of {', '.join(S3_SERVERS)}")
    return LocalSettings(
        workers=parse_workers(environ.get("LOCAL_WORKERS", "")),
        handlers={**DEFAULT_HANDLERS, **_by_endpoint("LOCAL_HANDLERS", environ.get("LOCAL_HANDLERS", ""))},
        engine=engine,
        models=_by_endpoint("LOCAL_MODELS", environ.get("LOCAL_MODELS", "")),
        seed=environ.get("LOCAL_SEED", plain.seed),
        s3=s3,
        log_dir=Path(log_dir) if log_dir else None,
        webhook_delays_s=_delays(delays) if delays else plain.webhook_delays_s,
        ping_interval_ms=ping_interval_ms,
        ping_grace_s=_number(environ, "LOCAL_PING_GRACE_S", plain.ping_grace_s),
        drain_s=_number(environ, "LOCAL_DRAIN_S", plain.drain_s),
        start_timeout_s=_number(environ, "LOCAL_START_TIMEOUT_S", start_timeout_s),
        min_execution_timeout_ms=int(
            _number(environ, "LOCAL_MIN_EXECUTION_TIMEOUT_MS", plain.min_execution_timeout_ms)
        ),
        rate_limited=environ.get("LOCAL_RATE_LIMITS", "0") == "1",
        failpoints=environ.get("LOCAL_FAILPOINTS", "0") == "1",
    )


def parse_workers(text: str) -> dict[str, int]:
    """Worker counts from "mistral=2,llama=1"; endpoints that are not named keep one. Raises BadSetting."""
    counts = dict.fromkeys(DEFAULT_HANDLERS, 1)
    for name, count in _by_endpoint("LOCAL_WORKERS", text).items():
        if not count.isdecimal():
            raise BadSetting(f"LOCAL_WORKERS: {name}={count!r} is not a number of workers")
        counts[name] = int(count)
    return counts


def _by_endpoint(variable: str, text: str) -> dict[str, str]:
    """The values of "endpoint=value,...", e.g. LOCAL_HANDLERS="mistral=tests.contract.echo_worker"."""
    values: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name not in DEFAULT_HANDLERS or not value:
            raise BadSetting(f"{variable}: {part!r} is not one of {', '.join(DEFAULT_HANDLERS)} with =VALUE")
        values[name] = value
    return values


def _delays(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BadSetting(f"LOCAL_WEBHOOK_DELAYS_S: {text!r} is not a list of seconds like 0,5,20") from error


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise BadSetting(f"{name}: {text!r} is not a number") from error
    if not (math.isfinite(value) and value > 0):
        raise BadSetting(f"{name}: {text!r} is not a positive number")
    return value
