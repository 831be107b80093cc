"""Real vLLM: output tokens a second through the whole service, over those of the same requests straight to AsyncLLM.

Both engines are loaded with the same arguments and run in turn, so that whatever else the machine does meets both.
The model is the tiny Mistral, or MODEL_NAME.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import median
from time import perf_counter, time
from typing import Any

import pytest

from handlers.mistral.model import CARD
from tests.bench.measure import bench_cloud, show
from tests.client import BatchClient, make_requests
from tests.vllm.conftest import unstarted_engine
from tests.vllm.local import MODELS, real_engines

REQUESTS = 2048
# The answer that the targets are about.
TOKENS = 512
WARM_UP = 256
# Callers look now and then. On a machine of two cores every look takes something from the engine.
POLL_S = 2.0


async def run(repeat: int) -> None:
    model = os.environ.get("MODEL_NAME", str(MODELS / "mistral"))
    requests = [with_length(request) for request in make_requests(REQUESTS)]
    with pytest.MonkeyPatch.context() as patch:
        engine: Any = unstarted_engine(CARD, model, patch)
        engine.start()
        try:
            await run_straight(engine, requests[:WARM_UP])
            tokens_per_s = await run_straight(engine, requests[:WARM_UP])
            async with bench_cloud(worker_env(engine.slots, tokens_per_s)) as client:
                await _compare(client, engine, requests, repeat)
        finally:
            engine.close()


def with_length(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request, for an answer of exactly TOKENS."""
    return {**request, "params": {**request["params"], "max_tokens": TOKENS, "ignore_eos": True}}


def worker_env(slots: int, tokens_per_s: float) -> dict[str, str]:
    """The worker is told what its engine was measured to do, as a deployment would be."""
    return {
        **real_engines(os.environ),
        "LOCAL_WORKERS": "mistral=1,llama=0",
        "MISTRAL_SLOTS": str(slots),
        "MISTRAL_REQUEST_S": str(slots * TOKENS / tokens_per_s),
        "LOG_LEVEL": "WARNING",
    }


async def _compare(
    client: BatchClient, engine: Any, requests: Sequence[Mapping[str, Any]], repeat: int
) -> None:
    await run_batch(client, requests[:WARM_UP])
    straight, through = [], []
    for _ in range(repeat):
        straight.append(await run_straight(engine, requests))
        through.append(await run_batch(client, requests))
    ratios = [one / other for one, other in zip(through, straight, strict=True)]
    show(
        bench="vllm",
        model=os.environ.get("MODEL_NAME", "tiny"),
        slots=engine.slots,
        requests=len(requests),
        tokens=TOKENS,
        service_tokens_per_s=median(through),
        straight_tokens_per_s=median(straight),
        efficiency=median(ratios),
        efficiencies=[round(ratio, 3) for ratio in ratios],
    )


async def run_batch(client: BatchClient, requests: Sequence[Mapping[str, Any]]) -> float:
    """Output tokens a second, from the first byte of the create to the end that the service recorded."""
    began_s = time()
    batch_id = (await client.call("create", stage="email", requests=requests))["id"]
    status = await client.wait(batch_id, poll_s=POLL_S, timeout_s=600)
    if status["counts"]["succeeded"] != len(requests):
        raise RuntimeError(f"lost requests: {status['counts']}")
    tokens: int = status["usage"]["output_tokens"]
    return tokens / (datetime.fromisoformat(status["ended_at"]).timestamp() - began_s)


async def run_straight(engine: Any, requests: Sequence[Mapping[str, Any]]) -> float:
    """Output tokens a second of all requests at once, without any of the service."""
    start_s = perf_counter()
    counts = await asyncio.gather(
        *(straight(engine._llm, f"straight-{start_s}-{n}", item["params"]) for n, item in enumerate(requests))
    )
    return sum(counts) / (perf_counter() - start_s)


async def straight(llm: Any, request_id: str, params: Mapping[str, Any]) -> int:
    from vllm import SamplingParams, TokensPrompt  # noqa: PLC0415 - the other benchmarks run without vLLM
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

    messages = [{"role": "system", "content": params["system"]}, *params["messages"]]
    tokens = llm.get_tokenizer().apply_chat_template(messages, tokenize=True, return_dict=False)
    sampling = SamplingParams(
        temperature=0.2, max_tokens=TOKENS, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY
    )
    outputs = [
        output async for output in llm.generate(TokensPrompt(prompt_token_ids=tokens), sampling, request_id)
    ]
    return len(outputs[-1].outputs[0].token_ids)
