"""The local cloud's settings from the environment."""

from pathlib import Path

import pytest

from tests.local_cloud.settings import BadSetting, LocalSettings, parse_settings


def test_nothing_set_means_the_defaults() -> None:
    assert parse_settings({}) == LocalSettings()


def test_each_variable_is_read_and_unnamed_endpoints_keep_theirs() -> None:
    settings = parse_settings(
        {
            "LOCAL_WORKERS": "mistral=4, llama=0",
            "LOCAL_HANDLERS": "llama=some.module",
            "LOCAL_ENGINE": "vllm",
            "LOCAL_SEED": "7",
            "LOCAL_S3": "rclone",
            "LOCAL_LOG_DIR": "/somewhere",
            "LOCAL_WEBHOOK_DELAYS_S": "0,0.5",
            "LOCAL_PING_INTERVAL_MS": "1000",
            "LOCAL_RATE_LIMITS": "1",
        }
    )
    assert settings.workers == {"batch-api": 1, "mistral": 4, "llama": 0}
    assert settings.handlers["llama"] == "some.module"
    assert settings.handlers["mistral"] == "handlers.mistral.handler"
    assert (settings.engine, settings.seed, settings.log_dir) == ("vllm", "7", Path("/somewhere"))
    assert settings.s3 == "rclone"
    assert (settings.webhook_delays_s, settings.ping_interval_ms) == ((0, 0.5), 1000)
    assert settings.rate_limited


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LOCAL_WORKERS", "gpt=1"),
        ("LOCAL_WORKERS", "mistral=-1"),
        ("LOCAL_WORKERS", "mistral"),
        ("LOCAL_HANDLERS", "gpt=module"),
        ("LOCAL_WEBHOOK_DELAYS_S", "soon"),
        ("LOCAL_PING_INTERVAL_MS", "999"),
        ("LOCAL_PING_GRACE_S", "nan"),
        ("LOCAL_DRAIN_S", "0"),
        ("LOCAL_S3", "minio"),
    ],
)
def test_a_bad_value_is_refused_by_the_variables_name(name: str, text: str) -> None:
    with pytest.raises(BadSetting, match=name):
        parse_settings({name: text})
