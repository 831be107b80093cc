"""The model's own chat template: a request's conversation as the tokens that its engine reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError

from shared.core.conversation import Conversation, Turn, conversation_of
from shared.errors import EngineDead, RequestRejected

# Marks where a prefilled answer ends, so that what the template puts behind it can be cut off.
_END = "\u241fend-of-prefill\u241f"
# Stands for a system text, to see whether the template writes it. The text itself may stand in a turn as well.
_SYSTEM = "\u241fsystem\u241f"


class ChatTemplate:
    """`tokenizer` is a Hugging Face tokenizer. Raises EngineDead where it has no template that works."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        try:
            self._text(Conversation("Be brief.", (Turn("user", "hello"),), ""))
        except (TemplateError, ValueError, TypeError) as error:
            raise EngineDead(f"the model's chat template can't be used: {error}") from error

    def tokens(self, params: Mapping[str, Any]) -> list[int]:
        """Raises RequestRejected where the template refuses the conversation."""
        conversation = conversation_of(params)
        try:
            # The template writes the special tokens itself.
            ids: list[int] = self._tokenizer.encode(self._text(conversation), add_special_tokens=False)
        except TemplateError as error:
            raise RequestRejected(f"messages: the model's chat template refuses them: {error}") from error
        except (TypeError, ValueError) as error:
            # Half a character, for one. The text of the error would repeat the prompt.
            raise RequestRejected("messages: not text that the model's tokenizer can read") from error
        return ids

    def _text(self, conversation: Conversation) -> str:
        """With the system text in its own role, or in the first user turn where the template has no such role (older
        Mistral models) or leaves it out (Mistral v0.3 does when the last turn is the assistant's)."""
        return self._render(conversation, fold_system=not self._writes_system(conversation))

    def _writes_system(self, conversation: Conversation) -> bool:
        if not conversation.system:
            return False
        try:
            return _SYSTEM in self._render(replace(conversation, system=_SYSTEM), fold_system=False)
        except TemplateError:
            return False

    def _render(self, conversation: Conversation, *, fold_system: bool) -> str:
        messages = conversation.messages(fold_system=fold_system)
        if conversation.prefill:
            messages.append({"role": "assistant", "content": conversation.prefill + _END})
        text: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not conversation.prefill
        )
        return text.partition(_END)[0] if conversation.prefill else text
