"""What a model says as calls of tools, read by vLLM's own parser for the model.

An answer that is nothing but calls as JSON is read here first: vLLM 0.11's parser for Llama loses inputs that nest.
"""

from __future__ import annotations

import importlib
import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from shared.core.tools import Offer, ToolCall, calls_in, is_input
from shared.errors import EngineDead

# Newest first.
PARSERS = ("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers")
# What a parser can't read it logs, and with it what the model said.
_LOGGERS = (*PARSERS, "vllm.parser")
# The tokens that open calls. A parser may refuse a tokenizer without its own, though it reads plain JSON as well: Llama
# 3.0 has none.
_OPENERS = ("[TOOL_CALLS]", "<|python_tag|>")


class ToolReader:
    """`name` is that of a vLLM parser. Raises EngineDead where there is none of that name."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = _WithOpeners(tokenizer)
        self._parser = _parser_class(name)
        for logger in _LOGGERS:
            logging.getLogger(logger).setLevel(logging.CRITICAL)

    def read(self, text: str, offer: Offer) -> tuple[str, tuple[ToolCall, ...]]:
        """What is said beside calls, and the calls; the whole text where there are none, or one of no tool on offer."""
        said, found = "", calls_in(_without_opener(text))
        if not found:
            parsed = self._parser(self._tokenizer).extract_tool_calls(text, None)
            said = (parsed.content or "").strip()
            found = [(call.function.name, _object(call.function.arguments)) for call in parsed.tool_calls]
        calls = tuple(
            ToolCall(f"toolu_{secrets.token_hex(12)}", name, value)
            for name, value in found[: offer.most]
            if is_input(value) and offer.accepts(name)
        )
        return (said, calls) if len(calls) == min(len(found), offer.most) > 0 else (_clean(text), ())


class _WithOpeners:
    """A tokenizer whose vocabulary has the openers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def get_vocab(self) -> dict[str, int]:
        known: Mapping[str, int] = self._tokenizer.get_vocab()
        return {**dict.fromkeys(_OPENERS, -1), **known}


def _parser_class(name: str) -> Any:
    for module in PARSERS:
        try:
            manager = importlib.import_module(module).ToolParserManager
        except ImportError:
            continue
        try:
            return manager.get_tool_parser(name)
        except KeyError:
            break
    raise EngineDead(f"this version of vLLM has no tool parser {name}")


def _without_opener(text: str) -> str:
    text = text.strip()
    for opener in _OPENERS:
        text = text.removeprefix(opener)
    return text


def _clean(text: str) -> str:
    for opener in _OPENERS:
        text = text.replace(opener, "")
    return text


def _object(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return None
