"""Settings: every fault at once, and secrets never shown."""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from handlers.catalog import CARDS
from shared.config import load_settings
from shared.errors import ConfigError
from tests.conftest import ROOT

SECRETS = {
    "RUNPOD_API_KEY": "rpa_SECRET1",
    "UPSTASH_REDIS_REST_TOKEN": "SECRET2",
    "WEBHOOK_TOKEN": "SECRET3",
    "S3_SECRET_ACCESS_KEY": "SECRET4",
    "CALLBACK_SECRET": f"whsec_{'SECRET5/' * 4} whsec_{'SECRET6/' * 4}",
}
ENV = {
    **SECRETS,
    "UPSTASH_REDIS_REST_URL": "https://db.example/",
    "MISTRAL_BASE_URL": "https://api.runpod.ai/v2/abc",
    "LLAMA_BASE_URL": "https://api.runpod.ai/v2/def/",
    "S3_ENDPOINT_URL": "https://s3.example",
    "S3_BUCKET": "batches",
    "S3_ACCESS_KEY_ID": "key-id",
}


def faults(**changes: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings({**ENV, **changes}, CARDS)
    return caught.value.faults


def test_nothing_else_reads_the_environment() -> None:
    sources = [*Path(ROOT / "shared").rglob("*.py"), *Path(ROOT / "handlers").rglob("*.py")]
    readers = {
        path.relative_to(ROOT).as_posix() for path in sources if "os.environ" in path.read_text("utf-8")
    }
    assert readers == {"handlers/entry.py"}


def test_an_empty_environment_is_refused_with_every_missing_variable() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({}, CARDS)
    assert caught.value.faults == [
        f"{name} is required"
        for name in (
            "RUNPOD_API_KEY",
            "UPSTASH_REDIS_REST_URL",
            "UPSTASH_REDIS_REST_TOKEN",
            "MISTRAL_BASE_URL",
            "LLAMA_BASE_URL",
        )
    ]


def test_all_faults_are_told_together() -> None:
    told = faults(
        RUNPOD_API_KEY=" ",
        MISTRAL_BASE_URL="abc",
        S3_BUCKET="",
        MISTRAL_SLOTS="0",
        LLAMA_REQUEST_S="fast",
        ENGINE="tgi",
        STAGES='{"summary": "gpt-4"}',
        TICK_S="nan",
        MAX_DEATHS="1.5",
        BEAT_S="20",
    )
    assert told == [
        "RUNPOD_API_KEY is required",
        "S3_BUCKET is required",
        "MISTRAL_SLOTS must be a number, at least 1",
        "LLAMA_REQUEST_S must be a number, at least 0.01",
        "MISTRAL_BASE_URL must be an http(s) URL",
        "STAGES: summary names the unknown model 'gpt-4'",
        "ENGINE must be vllm or simulated",
        "TICK_S must be a number, at least 0.01",
        "MAX_DEATHS must be a number, at least 1",
        "BEAT_STALE_S must be at least three times BEAT_S",
    ]


@pytest.mark.parametrize("text", ["[]", "x", '{"a": 1}', "3"])
def test_stages_that_are_no_table_are_a_fault(text: str) -> None:
    assert faults(STAGES=text) == ["STAGES must be a JSON object of stage to model name"]


@pytest.mark.parametrize("text", ["[]", "x", '{"email": 1}', '{"email": true}', "3"])
def test_stage_schemas_that_are_no_table_are_a_fault(text: str) -> None:
    assert faults(STAGE_SCHEMAS=text) == ["STAGE_SCHEMAS must be a JSON object of stage to JSON Schema"]


def test_every_stage_schema_at_fault_is_told_with_its_place() -> None:
    schemas = {
        "email": {"properties": {"n": {"type": "int"}}},
        "summary": {},
        "polish": {"$ref": "http://x/"},
    }
    first, second, third = faults(STAGE_SCHEMAS=json.dumps(schemas))
    assert first.startswith("STAGE_SCHEMAS: email: at $.properties.n.type: 'int' ")
    assert second == "STAGE_SCHEMAS: 'summary' is no stage"
    assert third.startswith("STAGE_SCHEMAS: polish: at $.$ref: 'http://x/' is not in this schema")


def test_an_added_stage_may_have_a_schema() -> None:
    added = {"STAGES": '{"summary": "mistral"}', "STAGE_SCHEMAS": '{"summary": {"type": "object"}}'}
    assert load_settings({**ENV, **added}, CARDS).stage_schemas == {"summary": {"type": "object"}}


def test_secrets_are_shown_neither_by_settings_nor_by_faults() -> None:
    settings = load_settings(ENV, CARDS)
    shown = [repr(settings), str(settings), str(ConfigError(faults(TICK_S="x", LOG_LEVEL="INFO")))]
    assert all(secret not in text for text in shown for secret in SECRETS.values())
    assert settings.redis_token.get_secret_value() == "SECRET2"


def test_a_callback_secret_is_a_key_or_several_and_not_shown() -> None:
    settings = load_settings(ENV, CARDS)
    keys = [secret.get_secret_value() for secret in settings.callback_secrets]
    assert keys == [b64decode("SECRET5/" * 4), b64decode("SECRET6/" * 4)]
    assert not settings.callback_allow_private
    assert not any(repr(key)[2:-1] in repr(settings) for key in keys)
    assert load_settings({**ENV, "CALLBACK_SECRET": ""}, CARDS).callback_secrets == ()
    [fault] = faults(CALLBACK_SECRET="SECRET5")
    assert fault == "CALLBACK_SECRET must be whsec_ and 24 to 64 bytes in base64; several, between spaces"


def test_defaults_are_those_of_the_readme() -> None:
    settings = load_settings(ENV, CARDS)
    assert (settings.engine, settings.log_level, settings.max_requests) == ("vllm", "INFO", 100_000)
    assert (settings.expires_in_s, settings.retain_s) == (86_400, 86_400)
    assert (settings.inline_bytes, settings.tick_s, settings.beat_s, settings.max_deaths) == (
        262_144,
        1,
        2,
        2,
    )
    assert settings.s3 is not None
    assert settings.s3.region == "us-east-1"
    assert (settings.redis_url, settings.base_urls["llama-70b"]) == (
        "https://db.example",
        "https://api.runpod.ai/v2/def",
    )


def test_without_its_variables_there_is_no_s3_and_no_webhook() -> None:
    absent = ("S3_", "WEBHOOK_")
    settings = load_settings(
        {name: value for name, value in ENV.items() if not name.startswith(absent)}, CARDS
    )
    assert (settings.s3, settings.webhook_token) == (None, None)


def test_a_deployment_tunes_its_cards_and_adds_stages() -> None:
    tuned = {"MISTRAL_SLOTS": "256", "MISTRAL_SHARD_REQUESTS": "64", "STAGES": '{"summary": "mistral"}'}
    settings = load_settings({**ENV, **tuned}, CARDS)
    card = settings.cards["mistral"]
    assert (card.slots, card.shard_requests, settings.cards["llama-70b"].slots) == (256, 64, 18)
    assert settings.stages["summary"] == "mistral"
    assert settings.stages["polish"] == "llama-70b"


def test_a_deployment_names_its_models_as_its_callers_do() -> None:
    named = {"MISTRAL_ALIASES": "claude-sonnet*, gpt-4o-mini", "LLAMA_ALIASES": "claude-opus*"}
    cards = load_settings({**ENV, **named}, CARDS).cards
    assert cards["mistral"].aliases == ("claude-sonnet*", "gpt-4o-mini")
    assert cards["llama-70b"].aliases == ("claude-opus*",)
    assert {card.name: card.aliases for card in load_settings(ENV, CARDS).cards.values()} == {
        card.name: card.aliases for card in CARDS
    }


def test_a_name_stands_for_one_model() -> None:
    twice = {"MISTRAL_ALIASES": "small,claude-*", "LLAMA_ALIASES": "claude-*"}
    assert faults(**twice) == ["LLAMA_ALIASES: 'claude-*' stands for mistral already"]
    assert faults(LLAMA_ALIASES="mistral") == ["LLAMA_ALIASES: 'mistral' stands for mistral already"]


@pytest.mark.parametrize(("name", "most"), [("MAX_REQUESTS", 1_000_000), ("MAX_BATCH_BYTES", 2 * 1024**3)])
def test_a_batch_may_hold_no_more_than_the_service_was_made_for(name: str, most: int) -> None:
    load_settings({**ENV, name: str(most)}, CARDS)
    with pytest.raises(ConfigError, match=f"{name} must be a number, at least 1 and at most {most:,}"):
        load_settings({**ENV, name: str(most + 1)}, CARDS)
