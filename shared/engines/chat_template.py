"""The model's own chat template: a request's conversation as the tokens that its engine reads."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError

from shared.core.conversation import Conversation, ToolResult, Turn, conversation_of
from shared.core.tools import Tool, ToolCall
from shared.errors import EngineDead, RequestRejected

# Marks where a prefilled answer ends, so that what the template puts behind it can be cut off.
_END = "\u241fend-of-prefill\u241f"
# Stands for a system text, to see whether the template writes it. The text itself may stand in a turn as well.
_SYSTEM = "\u241fsystem\u241f"
# A tool, a call of it and its result, to see whether the template writes them.
_TOOL, _CALL, _RESULT = "offered_tool", "called_tool", "result_of_tool"
_TOOLS = (Tool(_TOOL, "", {"type": "object"}, strict=False),)
_TOOL_USE = Conversation(
    "",
    (
        Turn("user", "hello"),
        Turn("assistant", "", calls=(ToolCall("call", _CALL, {}),)),
        Turn("user", "", results=(ToolResult("call", _CALL, _RESULT),)),
    ),
    "",
)


class ChatTemplate:
    """`tokenizer` is a Hugging Face tokenizer. Raises EngineDead where it has no template that works."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        try:
            self._text(Conversation("Be brief.", (Turn("user", "hello"),), ""), ())
        except (TemplateError, ValueError, TypeError) as error:
            raise EngineDead(f"the model's chat template can't be used: {error}") from error
        self._knows_tools = self._writes_tools()

    def tokens(self, params: Mapping[str, Any], tools: Sequence[Tool] = ()) -> list[int]:
        """`tools` are those that the model is told of. Raises RequestRejected where the template refuses the
        conversation."""
        conversation = conversation_of(params)
        try:
            # The template writes the special tokens itself.
            ids: list[int] = self._tokenizer.encode(self._text(conversation, tools), add_special_tokens=False)
        except TemplateError as error:
            raise RequestRejected(f"messages: the model's chat template refuses them: {error}") from error
        except (TypeError, ValueError) as error:
            # Half a character, for one. The text of the error would repeat the prompt.
            raise RequestRejected("messages: not text that the model's tokenizer can read") from error
        return ids

    def _text(self, conversation: Conversation, tools: Sequence[Tool]) -> str:
        """Tools, calls and results in the template's own form where it has one and takes this conversation, else as
        text."""
        if not tools and not conversation.has_calls:
            return self._with_system(conversation)
        if self._knows_tools:
            for form in (conversation, conversation.with_results_last()):
                with contextlib.suppress(TemplateError):
                    return self._with_system(form, tools)
        return self._with_system(conversation.as_text(tools))

    def _with_system(self, conversation: Conversation, tools: Sequence[Tool] = ()) -> str:
        """With the system text in its own role, or in the first user turn where the template has no such role (older
        Mistral models) or leaves it out (Mistral v0.3 does when the last turn is not the user's)."""
        return self._render(conversation, tools, fold_system=not self._writes_system(conversation, tools))

    def _writes_system(self, conversation: Conversation, tools: Sequence[Tool]) -> bool:
        if not conversation.system:
            return False
        try:
            return _SYSTEM in self._render(replace(conversation, system=_SYSTEM), tools, fold_system=False)
        except TemplateError:
            return False

    def _writes_tools(self) -> bool:
        try:
            text = self._render(_TOOL_USE, _TOOLS, fold_system=False)
        except (TemplateError, ValueError, TypeError):
            return False
        return all(mark in text for mark in (_TOOL, _CALL, _RESULT))

    def _render(self, conversation: Conversation, tools: Sequence[Tool], *, fold_system: bool) -> str:
        messages = conversation.messages(fold_system=fold_system)
        if conversation.prefill:
            messages.append({"role": "assistant", "content": conversation.prefill + _END})
        text: str = self._tokenizer.apply_chat_template(
            messages,
            tools=[_function(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=not conversation.prefill,
        )
        return text.partition(_END)[0] if conversation.prefill else text


def _function(tool: Tool) -> dict[str, Any]:
    """In the shape that chat templates share."""
    about = {"name": tool.name, "description": tool.description, "parameters": dict(tool.input_schema)}
    return {"type": "function", "function": about}
