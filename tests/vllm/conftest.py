"""What the tests of the real engine share: a local cloud with two engines, and how one is built in a test."""

import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from handlers.catalog import CARDS
from handlers.mistral.model import CARD as MISTRAL
from shared.config import Settings, load_settings
from shared.core.cards import ModelCard
from shared.engines.catalog import build_engine
from shared.ports.engine import Engine
from tests.client import BatchClient
from tests.flow.cloud import FlowCloud, connected, flow_cloud
from tests.local_cloud.settings import LocalSettings
from tests.local_cloud.worker_env import engine_env
from tests.vllm.local import real_engines

ELSEWHERE = {
    "RUNPOD_API_KEY": "key",
    "UPSTASH_REDIS_REST_URL": "http://127.0.0.1:9",
    "UPSTASH_REDIS_REST_TOKEN": "token",
    "MISTRAL_BASE_URL": "http://127.0.0.1:9/v2/mistral",
    "LLAMA_BASE_URL": "http://127.0.0.1:9/v2/llama",
}
# White space and strings without end are what a random model likes best: everything here has bounds.
TICKET = {
    "type": "object",
    "properties": {
        "subject": {"type": "string", "maxLength": 30},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"enum": ["warm", "cold"]}, "maxItems": 3},
    },
    "required": ["subject", "score", "tags"],
    "additionalProperties": False,
}
# What must not stand in an answer. Not "<|" alone: two such tokens in a row are a matter of time.
SPECIAL_TOKEN = re.compile(r"<\|\w+\|>")
# Nothing is wrong with a slow machine: only what hangs takes so long. A start of an engine included.
PATIENCE_S = 300.0
# Small shards, so that many overlap; and a worker on a busy machine may be late with its beats.
SETTINGS = {
    **real_engines({}),
    "BEAT_S": "0.5",
    "BEAT_STALE_S": "6",
    "LEASE_S": "1",
    "CLAIM_S": "5",
    "GONE_GRACE_S": "2",
    "DRAIN_S": "10",
    "WORKER_CONCURRENCY": "12",
    "MISTRAL_SHARD_REQUESTS": "16",
    "LLAMA_SHARD_REQUESTS": "16",
    "LOG_LEVEL": "INFO",
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FlowCloud]:
    async with flow_cloud(tmp_path_factory.mktemp("cloud"), **SETTINGS) as cloud:
        yield cloud


@pytest_asyncio.fixture
async def client(cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    async with connected(cloud) as client:
        yield client


def json_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "ticket", "schema": schema}}


def settings_for(env: Mapping[str, str]) -> Settings:
    """A worker's settings that name no real service."""
    return load_settings({**ELSEWHERE, **env}, CARDS)


def unstarted_engine(card: ModelCard, model: Path | str, patch: pytest.MonkeyPatch, **env: str) -> Engine:
    """An engine in this process. vLLM reads some of its settings from the environment, as long as `patch` holds."""
    fitting = engine_env("mistral" if card is MISTRAL else "llama", LocalSettings(engine="vllm"), os.environ)
    for name, text in fitting.items():
        patch.setenv(name, text)
    settings = settings_for({**os.environ, **env, "MODEL_NAME": str(model)})
    return build_engine(settings, settings.cards[card.name])
