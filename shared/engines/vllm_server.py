"""What vLLM moved between 0.11 and today, found where it is installed: its argument parser and its OpenAI app.

Everything else of vLLM that the engine uses has stayed in its place over these versions.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from shared.engines.asgi import App
from shared.errors import EngineDead

# Newest first.
ARGUMENTS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
PARSERS = ("vllm.utils.argparse_utils", "vllm.utils")


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What `vllm serve` makes of these words; where a flag stands twice, the last one counts. Raises EngineDead."""
    base: type[argparse.ArgumentParser] = _find(PARSERS, "FlexibleArgumentParser")

    class Parser(base):  # type: ignore[misc, valid-type]
        def error(self, message: str) -> NoReturn:
            raise EngineDead(f"vLLM's arguments: {message}")

    parser = _find(ARGUMENTS, "make_arg_parser")(Parser(prog="vllm", add_help=False))
    parsed: argparse.Namespace = parser.parse_args(list(words))
    return parsed


async def build_openai_app(engine: Any, arguments: argparse.Namespace) -> App:
    """vLLM's OpenAI app on an engine that runs. Its builders take other arguments in every few releases."""
    server = importlib.import_module("vllm.entrypoints.openai.api_server")
    offered = {
        "args": arguments,
        "engine_client": engine,
        "vllm_config": engine.vllm_config,
        "model_config": engine.vllm_config.model_config,
        "supported_tasks": await engine.get_supported_tasks(),
    }
    app = _with_known(server.build_app, offered)
    await _with_known(server.init_app_state, {**offered, "state": app.state})
    built: App = app
    return built


def _with_known(build: Callable[..., Any], offered: Mapping[str, Any]) -> Any:
    known = inspect.signature(build).parameters
    return build(**{name: value for name, value in offered.items() if name in known})


def _find(modules: Sequence[str], name: str) -> Any:
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise EngineDead(f"this version of vLLM has no {name} in {' or '.join(modules)}")
