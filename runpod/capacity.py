"""What a worker can do by arithmetic: how many requests its memory holds, and how fast its bandwidth and compute allow.

A token is made for all running requests at once by reading the weights and their KV cache once; a prompt is compute.
The figures (gpus.json) are data sheets' and assumed shares of them, nothing was measured; tensor parallel traffic and
batching losses are left out, so the truth is rather below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from definitions import FOLDER, Definition, read_json

SLOTS_AT_ONCE_MAX = 256


@dataclass(frozen=True)
class Capacity:
    """Of one worker, when it is full of the request of gpus.json. `slots`: requests at once; `request_s`: seconds of
    one of them; `requests_per_s`: how many end in a second."""

    kv_tokens: int
    slots: int
    request_s: float
    requests_per_s: float


def load_hardware() -> dict[str, Any]:
    data: dict[str, Any] = read_json(FOLDER / "gpus.json")
    return data


def capacity(definition: Definition, slots: int, hardware: dict[str, Any]) -> Capacity:
    """`slots`: what the service hands the worker at once, at most what its KV cache holds."""
    model, assumed, request = definition.model, hardware["assumed"], hardware["request"]
    assert model is not None  # noqa: S101 - only model endpoints have a capacity
    gpu, shape = hardware["gpus"][model.gpu], hardware["models"][model.name]
    count = definition.body["gpu"]["count"]
    bytes_per_token = shape["kv_kib_per_token"] * 1024
    free_gib = count * (gpu["memory_gib"] * assumed["gpu_memory_utilization"] - assumed["engine_gib_per_gpu"])
    kv_tokens = int((free_gib * 2**30 - model.weights_gb * 1e9) / bytes_per_token)
    fits = kv_tokens // (request["input_tokens"] + request["output_tokens"])
    running = min(slots, fits, SLOTS_AT_ONCE_MAX)

    held_tokens = running * (request["input_tokens"] + request["output_tokens"] / 2)
    read_bytes = model.weights_gb * 1e9 + held_tokens * bytes_per_token
    token_s = read_bytes / (count * gpu["bandwidth_gb_s"] * 1e9 * assumed["share_of_bandwidth"])
    flops = 2 * shape["parameters_billion"] * 1e9 * request["input_tokens"]
    rate = gpu[f"{model.precision}_tflops"] * 1e12 * assumed["share_of_tflops"]
    # While a request runs, as many prompts as it has neighbours are read in between.
    request_s = request["output_tokens"] * token_s + running * flops / (count * rate)
    return Capacity(kv_tokens, running, request_s, running / request_s)
