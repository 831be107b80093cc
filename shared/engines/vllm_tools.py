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
        self._tokenizer = tokenizer
        self._parser = _parser_of(tokenizer, name)
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


def _parser_of(tokenizer: Any, name: str) -> Any:
    """vLLM's parser, made fit for this tokenizer and for our way of guiding where it is not; vLLM's OpenAI app finds it
    under the same name."""
    manager = _manager()
    try:
        parser: Any = manager.get_tool_parser(name)
    except KeyError:
        raise EngineDead(f"this version of vLLM has no tool parser {name}") from None
    takes_it = _takes(parser, tokenizer)
    # A newer way to guide a call that must be made, which our backend for guiding can't read.
    has_tags = getattr(parser, "structural_tag_model", None) is not None
    if takes_it and not has_tags:
        return parser

    class Fitted(parser):  # type: ignore[misc]
        structural_tag_model = None
        supports_required_and_named = has_tags or getattr(parser, "supports_required_and_named", True)

        def __init__(self, tokenizer: Any, *others: Any, **named: Any) -> None:
            super().__init__(tokenizer if takes_it else _WithOpeners(tokenizer), *others, **named)

    manager.register_module(name, module=Fitted)
    return Fitted


def _takes(parser: Any, tokenizer: Any) -> bool:
    try:
        parser(tokenizer)
    except RuntimeError:
        return False
    return True


def _manager() -> Any:
    for module in PARSERS:
        try:
            return importlib.import_module(module).ToolParserManager
        except ImportError:
            continue
    raise EngineDead(f"this version of vLLM has no {' or '.join(PARSERS)}")


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
