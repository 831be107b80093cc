"""Fixtures of the contract tests."""

import pytest

from shared.adapters.upstash import Upstash
from shared.flow.submission import Limits
from tests.contract.service import Service, build
from tests.contract.state import Store


@pytest.fixture
def store(redis: Upstash) -> Store:
    return Store(redis)


@pytest.fixture
def service(store: Store) -> Service:
    """With limits that a test can reach."""
    return build(store, Limits(max_requests=50, max_batch_bytes=100_000))
