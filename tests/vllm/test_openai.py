"""The OpenAI surface of both model endpoints on real vLLM, asked through the official SDK."""

import pytest

from handlers.catalog import CARDS
from tests.flow.cloud import FlowCloud
from tests.openai_suite import OpenAIServer, OpenAISuite


@pytest.fixture(params=["mistral", "llama"])
def server(request: pytest.FixtureRequest, cloud: FlowCloud) -> OpenAIServer:
    [card] = [card for card in CARDS if card.name.startswith(request.param)]
    exact = [alias for alias in card.aliases if "*" not in alias]
    names = dict.fromkeys([card.name, card.repository, *exact])
    return OpenAIServer(
        cloud.worker_env[f"{card.env_prefix}_BASE_URL"], cloud.address["api_key"], tuple(names)
    )


class TestOpenAI(OpenAISuite):
    pass
