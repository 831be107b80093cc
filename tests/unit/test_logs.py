"""Logs are one JSON object a line, with the ids that are known and nothing else."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from shared.logs import JsonFormatter, set_up_logging


def logged(*, exc_info: bool = False, **extra: object) -> dict[str, object]:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("shared.test")
    logger.addHandler(handler)
    try:
        raise ValueError("inner")
    except ValueError:
        logger.warning("shard %d\nsettled", 3, extra=extra, exc_info=exc_info)
    finally:
        logger.removeHandler(handler)
    [line] = output.getvalue().splitlines()
    entry: dict[str, object] = json.loads(line)
    return entry


def test_a_line_has_the_ids_that_are_known() -> None:
    entry = logged(batch="batch_1", shard=0, attempt=2)
    assert (entry["message"], entry["level"], entry["logger"]) == (
        "shard 3\nsettled",
        "WARNING",
        "shared.test",
    )
    assert (entry["batch"], entry["shard"], entry["attempt"]) == ("batch_1", 0, 2)
    assert "job" not in entry
    assert str(entry["time"]).endswith("+00:00")


def test_what_is_no_id_is_left_out() -> None:
    assert "prompt" not in logged(prompt="secret")


def test_an_exception_stays_on_its_line() -> None:
    assert "ValueError: inner" in str(logged(exc_info=True)["exception"])


@pytest.fixture
def _restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("shared", "handlers")]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.usefixtures("_restored")
def test_our_loggers_write_to_stderr_once_and_libraries_stay_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        set_up_logging("INFO")
    logging.getLogger("shared.flow").info("hello")
    logging.getLogger("shared.flow").debug("quiet")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["message"] == "hello"
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
