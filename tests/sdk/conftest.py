"""One cloud for all versions of the official SDKs, and an app on each."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.client import BatchClient
from tests.flow.cloud import FlowCloud, connected, flow_cloud
from tests.sdk.apps import SDKS, App, Sdk, running

MAX_REQUESTS = 60


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FlowCloud]:
    """Pages are short, so that results take several."""
    limits = {"RESULTS_PAGE_BYTES": "4096", "MAX_REQUESTS": str(MAX_REQUESTS)}
    async with flow_cloud(tmp_path_factory.mktemp("sdk-cloud"), **limits) as cloud:
        yield cloud


@pytest_asyncio.fixture(loop_scope="session")
async def client(cloud: FlowCloud) -> AsyncIterator[BatchClient]:
    async with connected(cloud) as client:
        yield client


@pytest.fixture(scope="session", params=SDKS, ids=str)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    sdk: Sdk = request.param
    return sdk


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def app(sdk: Sdk, cloud: FlowCloud) -> AsyncIterator[App]:
    async with running(sdk, cloud.address) as app:
        yield app


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def expired_batch(cloud: FlowCloud) -> str:
    """A batch of one request that never ends, with the shortest life there is."""
    late = {"custom_id": "late", "params": {"messages": [{"role": "user", "content": "[[stall]]"}]}}
    async with connected(cloud) as client:
        made = await client.call("create", stage="email", requests=[late], expires_in_s=10)
    return str(made["id"])
