"""A request's messages as a chat template wants them: roles that alternate, beginning with the user.

Callers follow Anthropic's rules, which are wider: turns of one role may follow each other (they are one turn), and the
last one may be the assistant's (the answer goes on from there).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import RequestRejected

TURN_BREAK = "\n\n"


@dataclass(frozen=True)
class Turn:
    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """`turns` alternate and begin and end with the user. `prefill` is how the answer must begin."""

    system: str
    turns: tuple[Turn, ...]
    prefill: str

    def messages(self, *, fold_system: bool) -> list[dict[str, str]]:
        """As a template takes them. Where it knows no system role, that text opens the first user turn."""
        turns = list(self.turns)
        if self.system and fold_system:
            turns[0] = Turn("user", self.system + TURN_BREAK + turns[0].text)
        elif self.system:
            turns.insert(0, Turn("system", self.system))
        return [{"role": turn.role, "content": turn.text} for turn in turns]


def conversation_of(params: Mapping[str, Any]) -> Conversation:
    """Raises RequestRejected where the assistant begins: no template can say that."""
    turns = _merged([Turn(message["role"], message["content"]) for message in params["messages"]])
    if turns[0].role != "user":
        raise RequestRejected(
            "messages[0].role: a conversation begins with the user", param="messages[0].role"
        )
    prefill = turns.pop().text if turns[-1].role == "assistant" else ""
    return Conversation((params.get("system") or "").strip(), tuple(turns), prefill)


def _merged(turns: Sequence[Turn]) -> list[Turn]:
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            merged[-1] = Turn(turn.role, merged[-1].text + TURN_BREAK + turn.text)
        else:
            merged.append(turn)
    return merged
