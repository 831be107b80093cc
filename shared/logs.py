"""JSON logs on stderr: one object a line, with batch, shard and attempt where they are known.

Prompts, completions, tokens and webhook URLs are never handed to a logger; that, not a filter, keeps them out.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

FIELDS = ("batch", "shard", "attempt", "epoch", "job", "model", "endpoint")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({name: value for name in FIELDS if (value := getattr(record, name, None)) is not None})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up_logging(level: str) -> None:
    """Our own loggers only: libraries log URLs, and a webhook's URL holds a token."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(JsonFormatter())
    for name in ("shared", "handlers"):
        logger = logging.getLogger(name)
        logger.handlers = [output]
        logger.propagate = False
        logger.setLevel(level)
    # The SDK lets every library log to its output.
    for name in ("httpx", "httpcore", "botocore", "boto3", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
