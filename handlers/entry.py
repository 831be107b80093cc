"""What all handlers share at the edge: settings or a one-line refusal, and errors as RunPod carries them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import runpod

from handlers.catalog import CARDS
from handlers.drain import Drain
from shared.config import Settings, load_settings
from shared.errors import ConfigError, ServiceError
from shared.logs import set_up_logging

log = logging.getLogger(__name__)

Job = dict[str, Any]
Value = TypeVar("Value")


class _Output(dict[str, Any]):
    """What a job gives. The SDK writes every output into texts for its log, whatever the log's level: of a large page
    that takes as long as the page does."""

    def __repr__(self) -> str:
        return f"<output: {', '.join(self)}>"


def configured(build: Callable[[], Value]) -> Value:
    """What `build` makes of the settings. Wrong ones end the process: exit code 2, every fault on stderr."""
    try:
        return build()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def read_settings() -> Settings:
    """The settings of this process, or its end; logging is set up by them."""
    settings = configured(lambda: load_settings(os.environ, CARDS))
    set_up_logging(settings.log_level)
    sdk_log = runpod.RunPodLogger()
    if sdk_log.level in ("TRACE", "DEBUG"):
        # At these, of which DEBUG is its default, the SDK logs the output of every job: completions.
        sdk_log.set_level("INFO")
    return settings


def serve(work: Callable[[Job], Awaitable[dict[str, Any]]], concurrency: int, drain: Drain) -> None:
    """Run the SDK's worker until it ends, with up to `concurrency` jobs beside each other."""

    # The SDK takes a coroutine function for one that may run beside others; an object would be called in turn.
    async def handle(job: Job) -> dict[str, Any]:
        drain.handle(str(job.get("id")))
        try:
            return _Output(await work(job))
        except Exception as error:  # noqa: BLE001 - the edge: RunPod gets every error in our form
            return _error(job, error)

    _run({"handler": handle}, concurrency, drain)


def serve_stream(work: Callable[[Job], AsyncGenerator[Any, None]], concurrency: int, drain: Drain) -> None:
    """The same for jobs that answer in chunks. RunPod's /status shows the list of them."""

    # Only a generator function can stream, and then every job of the endpoint is one.
    async def handle(job: Job) -> AsyncGenerator[Any, None]:
        drain.handle(str(job.get("id")))
        try:
            async with aclosing(work(job)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Exception as error:  # noqa: BLE001 - the edge: RunPod gets every error in our form
            yield _error(job, error)

    _run({"handler": handle, "return_aggregate_stream": True}, concurrency, drain)


def _run(config: dict[str, Any], concurrency: int, drain: Drain) -> None:
    def constant(current: int) -> int:
        # The first code of ours that runs inside the SDK's event loop. The number never changes: a change would make
        # the SDK drain the worker first.
        drain.arm()
        return concurrency

    runpod.serverless.start({**config, "concurrency_modifier": constant})


def _error(job: Job, error: Exception) -> dict[str, Any]:
    """`{"error": text}`: RunPod wants a string there, and a traceback would reach the caller."""
    job_id = str(job.get("id"))
    if not isinstance(error, ServiceError):
        log.error("unexpected failure", exc_info=error, extra={"job": job_id})
        error = ServiceError("Internal error")
    elif error.status_code >= 500:
        log.warning("failed: %s", error.message, extra={"job": job_id})
    return {"error": error.to_body(job_id)}
