"""Model cards: what a model is and what its GPU really runs, as data; and the numbers that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

# The SDK's take loop sleeps 1 s whenever it is full, and a job needs a moment to arrive: so long must the work in
# hand last beyond what is running (measured: an engine stays full from about this on).
TAKE_LAG_S = 2.0
# No job's executionTimeout is shorter.
EXECUTION_TIMEOUT_MIN_S = 600.0


@dataclass(frozen=True)
class ModelCard:
    """A model as deployed. Figures are per worker (one engine on `gpus` GPUs).

    `slots`: requests that really run at once; `request_s`: seconds a typical request takes there, and
    `request_max_s` the longest; `shard_requests`: most requests in one shard; `aliases`: names in a request's
    `model`; `env_prefix`: how its environment variables begin. `request_tokens`: prompt and answer of a typical
    request, for what fits into the KV cache that an engine reports; `stop_tokens`: end a turn, besides those that the
    model's own files name; `fixed_concurrency`: jobs that a worker holds at a time, where a deployment says so;
    `tool_parser`: vLLM's name for how the model writes calls of tools.
    """

    name: str
    repository: str
    context_tokens: int
    gpus: int
    slots: int
    request_s: float
    request_max_s: float
    shard_requests: int
    shard_bytes: int = 1024 * 1024
    aliases: tuple[str, ...] = ()
    env_prefix: str = ""
    request_tokens: int = 1000
    gpu_memory_utilization: float = 0.9
    stop_tokens: tuple[str, ...] = ()
    fixed_concurrency: int | None = None
    tool_parser: str = ""

    def shard_size(self, requests: int) -> int:
        """Requests per shard for a batch that has `requests` for this model.

        A large batch uses the card's size; a small one is cut into about 8, so that several workers share it.
        """
        return min(self.shard_requests, max(self.shard_requests // 4, math.ceil(requests / 8), 1))

    def concurrency(self, slots: int | None = None, request_s: float | None = None) -> int:
        """Jobs one worker holds at a time so that its engine never drains. `slots` and `request_s` may be what the
        engine reported at its start instead of the card's figures."""
        if self.fixed_concurrency:
            return self.fixed_concurrency
        slots = slots or self.slots
        in_hand = slots + slots / (request_s or self.request_s) * TAKE_LAG_S
        return max(2, math.ceil(in_hand / self.shard_requests))

    def execution_timeout_s(self, requests: int, concurrency: int) -> float:
        """How long RunPod may let a shard's job run: it shares the engine with `concurrency - 1` others, so all of
        them may have to pass before its last request starts. Twice that, and never below ten minutes."""
        ahead = requests + (concurrency - 1) * self.shard_requests
        waves = math.ceil(ahead / self.slots) + 1
        return max(EXECUTION_TIMEOUT_MIN_S, 2 * waves * self.request_max_s)
