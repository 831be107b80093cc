"""What a message may hold, on the wire: text, or a list of blocks.

A text model reads text, calls of tools and their results. A block of another type is let pass here, so that a batch is
not refused for it; its own request fails later, when it is turned into a conversation (`shared/core/conversation.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

TURN_BREAK = "\n\n"
_TEXT, _BLOCKS = "<text>", "<blocks>"
_KINDS = ("text", "tool_use", "tool_result")
_OTHER = "<other>"
# What pydantic puts into the path of a fault to say which kind of content it took it for.
TAGS = frozenset({_TEXT, _BLOCKS, _OTHER, *(f"<{kind}>" for kind in _KINDS)})

Text = Annotated[str, Field(min_length=1)]


class Block(BaseModel):
    """`cache_control`, `citations` and `caller` change nothing here. Other unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    cache_control: dict[str, Any] | None = None


class TextBlock(Block):
    type: Literal["text"]
    text: Text
    citations: list[Any] | None = None


class ToolUseBlock(Block):
    type: Literal["tool_use"]
    id: Annotated[str, Field(min_length=1, max_length=256)]
    name: Text
    input: dict[str, Any]
    caller: dict[str, Any] | None = None


class OtherBlock(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    type: Text


def _kind(value: Any) -> str | None:
    """Which of them a block is by its `type`; None for what is no block at all."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if not isinstance(kind, str):
        return _OTHER if isinstance(value, dict) else None
    return f"<{kind}>" if kind in _KINDS else _OTHER


def _text_kind(value: Any) -> str | None:
    kind = _kind(value)
    return kind if kind in ("<text>", None) else _OTHER


def _shape(value: Any) -> str:
    return _BLOCKS if isinstance(value, list) else _TEXT


_NO_BLOCK = {"custom_error_type": "not_an_object", "custom_error_message": "must be an object"}

ResultBlock = Annotated[
    Annotated[TextBlock, Tag("<text>")] | Annotated[OtherBlock, Tag(_OTHER)],
    Discriminator(_text_kind, **_NO_BLOCK),
]


class ToolResultBlock(Block):
    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Field(min_length=1, max_length=256)]
    content: (
        Annotated[
            Annotated[str, Tag(_TEXT)] | Annotated[list[ResultBlock], Tag(_BLOCKS)], Discriminator(_shape)
        ]
        | None
    ) = None
    is_error: bool | None = None


AnyBlock = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")]
    | Annotated[OtherBlock, Tag(_OTHER)],
    Discriminator(_kind, **_NO_BLOCK),
]
Content = Annotated[
    Annotated[Text, Tag(_TEXT)] | Annotated[list[AnyBlock], Field(min_length=1), Tag(_BLOCKS)],
    Discriminator(_shape),
]
System = Annotated[
    Annotated[str, Tag(_TEXT)] | Annotated[list[TextBlock], Tag(_BLOCKS)],
    Discriminator(_shape),
]


def text_of(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    """The text of stored content; of a list its text blocks, each a paragraph of its own."""
    if content is None or isinstance(content, str):
        return content or ""
    return joined(block["text"] for block in content if block["type"] == "text")


def joined(texts: Iterable[str]) -> str:
    return TURN_BREAK.join(text for text in texts if text)
