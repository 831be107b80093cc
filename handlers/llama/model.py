"""Llama-3 70B as deployed: two A100 with 80 GB each, tensor parallel."""

from shared.core.cards import ModelCard

CARD = ModelCard(
    name="llama-70b",
    repository="meta-llama/Meta-Llama-3-70B-Instruct",
    context_tokens=8192,
    gpus=2,
    # FP16 weights leave about 26 K tokens of KV cache: 10-25 requests of 700-1,500 tokens.
    slots=18,
    request_s=15.0,
    request_max_s=240.0,
    shard_requests=8,
    aliases=("llama", "llama-3-70b", "meta-llama/Meta-Llama-3-70B-Instruct", "claude-*"),
    env_prefix="LLAMA",
    stop_tokens=("<|eot_id|>",),
    tool_parser="llama3_json",
)
