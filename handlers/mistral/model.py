"""Mistral 7B as deployed: one RTX 4090 with 24 GB."""

from shared.core.cards import ModelCard

CARD = ModelCard(
    name="mistral",
    repository="mistralai/Mistral-7B-Instruct-v0.3",
    context_tokens=8192,
    gpus=1,
    # About 49 K tokens of KV cache hold 40-70 requests of 700-1,500 tokens.
    slots=64,
    request_s=3.0,
    request_max_s=60.0,
    shard_requests=32,
    aliases=(
        "mistral-7b",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "claude-haiku*",
        "claude-3-haiku*",
        "claude-3-5-haiku*",
    ),
    env_prefix="MISTRAL",
    tool_parser="mistral",
)
