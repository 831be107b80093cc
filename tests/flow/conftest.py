"""Fixtures of the flow tests: a local cloud for all that can share it, one whose limits are small, one that crashes."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shared.adapters.upstash import Upstash
from tests.client import BatchClient
from tests.flow.cloud import CALLBACK_SECRET, FACTS, FlowCloud, connected, flow_cloud


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FlowCloud]:
    # A stage whose answers have a shape, and callbacks.
    env = {
        "STAGES": '{"facts": "llama-70b"}',
        "STAGE_SCHEMAS": json.dumps({"facts": FACTS}),
        "CALLBACK_SECRET": CALLBACK_SECRET,
    }
    async with flow_cloud(tmp_path_factory.mktemp("cloud"), **env) as cloud:
        yield cloud


@pytest_asyncio.fixture
async def client(cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    async with connected(cloud) as client:
        yield client


@pytest_asyncio.fixture
async def cloud_redis(cloud: FlowCloud) -> AsyncIterator[Upstash]:
    """The shared cloud's Redis, with all rights."""
    redis = Upstash(cloud.address["redis_url"], cloud.address["redis_token"])
    yield redis
    await redis.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def small_cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FlowCloud]:
    """Payloads go to S3, pages are short, batches are small and a second death is one too many."""
    limits = {
        "PAYLOAD_INLINE_BYTES": "256",
        "RESULTS_PAGE_BYTES": "2048",
        "MAX_REQUESTS": "60",
        "MAX_DEATHS": "2",
    }
    async with flow_cloud(tmp_path_factory.mktemp("small-cloud"), **limits) as cloud:
        yield cloud


@pytest_asyncio.fixture
async def small_client(small_cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    async with connected(small_cloud) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crash_cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FlowCloud]:
    """Its workers have failpoints. Shards are small, outputs go to S3; others take over from those that crash."""
    env = {
        "LOCAL_FAILPOINTS": "1",
        "LOCAL_WORKERS": "batch-api=2,mistral=2,llama=1",
        "MISTRAL_SHARD_REQUESTS": "4",
        "LLAMA_SHARD_REQUESTS": "2",
        "PAYLOAD_INLINE_BYTES": "256",
    }
    async with flow_cloud(tmp_path_factory.mktemp("crash-cloud"), **env) as cloud:
        yield cloud


@pytest_asyncio.fixture
async def crash_client(crash_cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    async with connected(crash_cloud) as client:
        yield client


@pytest_asyncio.fixture
async def crash_redis(crash_cloud: FlowCloud) -> AsyncIterator[Upstash]:
    redis = Upstash(crash_cloud.address["redis_url"], crash_cloud.address["redis_token"])
    yield redis
    await redis.close()
