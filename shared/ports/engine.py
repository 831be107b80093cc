"""An engine that completes requests: a model on a GPU, or its simulation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shared.core.tools import ToolCall


@dataclass(frozen=True)
class Prompt:
    """One request. `params` are its own (system, messages, max_tokens, temperature, ...). An `urgent` one goes ahead of
    every request of a batch."""

    request_id: str
    params: Mapping[str, Any]
    urgent: bool = False


@dataclass(frozen=True)
class Completion:
    """`stop_reason`: end_turn, max_tokens, stop_sequence or tool_use; `stop_sequence` is the one that was met; `calls`
    are the tools that the model calls, and `text` is what it says before them."""

    text: str
    input_tokens: int
    output_tokens: int
    stop_reason: str
    stop_sequence: str | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Call:
    """One call of the OpenAI API: `method` and `path` ("/v1/chat/completions"), and the JSON body of a POST."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Reply:
    """The answer to a call. A body that is not streamed is one chunk of JSON; `streaming` ones are server-sent
    events, a chunk ending wherever the engine ended it. Closing `chunks` early aborts the call."""

    status_code: int
    streaming: bool
    chunks: AsyncGenerator[bytes, None]


class Engine(Protocol):
    """Continuous batching inside: `generate` is called for hundreds of requests at once and queues by itself."""

    @property
    def slots(self) -> int:
        """Requests that really run at once; known after `start`."""

    @property
    def alive(self) -> bool:
        """False once it died: nothing brings it back."""

    @property
    def request_s(self) -> float:
        """Seconds a typical request takes."""

    def start(self) -> None:
        """Load. Returns when requests can be taken; raises EngineDead with the reason in one line. Blocks: it is
        called before there is an event loop, so that no job is taken until the model is there."""

    async def generate(self, prompt: Prompt) -> Completion:
        """Raises RequestRejected, EngineBusy or EngineDead. Cancelling the call aborts the request."""

    async def call(self, call: Call) -> Reply:
        """An interactive call, which goes ahead of every request of a batch. A refusal is a Reply with OpenAI's own
        error body; raises EngineDead only."""

    def close(self) -> None:
        """Abort what runs, and unload."""
