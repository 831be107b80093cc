"""vLLM in this process: requests of batches straight to AsyncLLM, interactive calls through its own OpenAI app.

Works unchanged from vLLM 0.11 (the image) to 0.32. The engine's core runs in a process of its own; when that dies,
every call raises EngineDead at once and nothing brings it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import shlex
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.config import VllmConfig
from shared.core.cards import ModelCard
from shared.core.tools import offer_of
from shared.engines import vllm_server
from shared.engines.asgi import App, AppFailed, call_app
from shared.engines.chat_template import ChatTemplate
from shared.engines.model_files import locate
from shared.engines.sampling import GUIDED_PATTERNS_MAX, patterns_in, sampling_fields
from shared.engines.vllm_tools import ToolReader
from shared.errors import EngineBusy, EngineDead, RequestRejected
from shared.ports.engine import Call, Completion, Prompt, Reply

log = logging.getLogger(__name__)

# vLLM runs the lowest number first. Calls of the OpenAI API have its default, 0.
URGENT_PRIORITY, BATCH_PRIORITY = 0, 1
ROUTES = {
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/v1/models": "GET",
}


class VllmEngine:
    def __init__(self, card: ModelCard, config: VllmConfig) -> None:
        self._card = card
        self._config = config
        self._slots = card.slots
        self._context_tokens = card.context_tokens
        self._llm: Any = None
        self._arguments: Any = None
        self._chat: ChatTemplate | None = None
        self._tools: ToolReader | None = None
        self._stop_token_ids: list[int] = []
        self._app: asyncio.Task[App] | None = None

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def alive(self) -> bool:
        return self._llm is not None and not self._llm.errored

    @property
    def request_s(self) -> float:
        return self._card.request_s

    def start(self) -> None:
        try:
            self._load()
        except EngineDead:
            raise
        except ImportError as error:
            raise EngineDead(f"vLLM is not installed here: {error}") from error
        except Exception as error:
            raise EngineDead(_one_line(error)) from error

    def _load(self) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415 - takes seconds; only this engine needs it
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

        self._arguments = vllm_server.parse_arguments(arguments(self._card, self._config))
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(self._arguments))
        tokenizer = _result(self._llm.get_tokenizer())
        self._chat = ChatTemplate(tokenizer)
        self._tools = ToolReader(tokenizer, self._arguments.tool_call_parser)
        known = tokenizer.get_vocab()
        self._stop_token_ids = [known[token] for token in self._card.stop_tokens if token in known]
        settings = self._llm.vllm_config
        self._context_tokens = settings.model_config.max_model_len
        kv_tokens = settings.cache_config.num_gpu_blocks * settings.cache_config.block_size
        most = settings.scheduler_config.max_num_seqs
        self._slots = max(1, min(most, kv_tokens // self._card.request_tokens))
        log.info(
            "engine ready: %d requests at once (%d tokens of KV cache, context %d)",
            self._slots,
            kv_tokens,
            self._context_tokens,
        )

    async def generate(self, prompt: Prompt) -> Completion:
        from vllm import SamplingParams, TokensPrompt  # noqa: PLC0415 - loaded by `start`
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams  # noqa: PLC0415

        if self._chat is None or self._tools is None:
            raise EngineDead("the engine was not started")
        offer = offer_of(prompt.params)
        tokens = self._chat.tokens(prompt.params, offer.tools if offer else ())
        room = self._context_tokens - len(tokens)
        if room < 1:
            raise RequestRejected(
                f"messages: the prompt has {len(tokens)} tokens, the model's context {self._context_tokens}"
            )
        fields = sampling_fields(prompt.params, room, offer)
        guide = fields.pop("structured_outputs", None)
        with _errors_of_vllm():
            sampling = SamplingParams(
                **fields,
                stop_token_ids=[] if fields.get("ignore_eos") else self._stop_token_ids,
                structured_outputs=StructuredOutputsParams(**guide) if guide else None,
                # The token that opens Mistral's calls is one of them.
                skip_special_tokens=offer is None,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            # One output, at the end.
            outputs = [
                output
                async for output in self._llm.generate(
                    TokensPrompt(prompt_token_ids=tokens),
                    sampling,
                    prompt.request_id,
                    priority=URGENT_PRIORITY if prompt.urgent else BATCH_PRIORITY,
                )
            ]
        done = _completion(outputs[-1], len(tokens))
        if offer is None:
            return done
        text, calls = self._tools.read(done.text, offer)
        return replace(done, text=text, calls=calls, stop_reason="tool_use" if calls else done.stop_reason)

    async def call(self, call: Call) -> Reply:
        if ROUTES.get(call.path) != call.method:
            return _refusal(404, "NotFoundError", f"{call.method} {call.path} is not served here")
        if not self.alive:
            raise EngineDead("the engine is dead")
        if fault := self._fault(call.body or {}):
            return _refusal(400, "BadRequestError", fault)
        try:
            reply = await call_app(await self._openai_app(), call)
        except AppFailed as error:
            log.warning("an interactive call failed: %s", error)
            reply = _refusal(500, "InternalServerError", "the engine gave no answer")
        if reply.status_code >= 500 and self._llm.errored:
            await reply.chunks.aclose()
            raise EngineDead("the engine died while this call ran")
        return reply

    def _fault(self, body: Mapping[str, Any]) -> str | None:
        """What must not reach vLLM 0.11, because one such call ends the worker."""
        if body.get("n") not in (None, 1):
            # Kills the engine together with priorities.
            return "n: only one choice for a request is supported here"
        if body.get("prompt_embeds") is not None:
            # Unpacked in this process without a look (CVE-2025-62164): one can take all its memory, or crash it.
            return "prompt_embeds: not supported here"
        if len(set(patterns_in(body))) > GUIDED_PATTERNS_MAX:
            return f"response_format: more than {GUIDED_PATTERNS_MAX} patterns can't guide an answer"
        ids = body.get("stop_token_ids")
        known = range(self._llm.vllm_config.model_config.get_vocab_size())
        # Strictly numbers: vLLM would read "7" and 7.0 as well.
        if ids is None or (isinstance(ids, list) and all(type(one) is int and one in known for one in ids)):
            return None
        # Kills the engine together with min_tokens, for which it is an index.
        return "stop_token_ids: must be a list of tokens of the model's vocabulary"

    async def _openai_app(self) -> App:
        """Built at the first call: it needs an event loop."""
        if self._app is None:
            task = vllm_server.build_openai_app(self._llm, self._arguments)
            self._app = asyncio.get_running_loop().create_task(task)
        app = self._app
        try:
            return await asyncio.shield(app)
        except Exception:
            if self._app is app:
                # The next call tries again.
                self._app = None
            raise

    def close(self) -> None:
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None


def arguments(card: ModelCard, config: VllmConfig) -> list[str]:
    """The words of `vllm serve` for a model. Later ones win: the card, then VLLM_ARGS, then single variables."""
    model = config.model or card.repository
    names = [config.served_name] if config.served_name else []
    names += [card.name, card.repository, *(name for name in card.aliases if "*" not in name)]
    return [
        *("--model", locate(model, config.revision, Path(config.hub_cache))),
        *("--served-model-name", *dict.fromkeys(names)),
        *("--max-model-len", str(card.context_tokens)),
        *("--gpu-memory-utilization", str(card.gpu_memory_utilization)),
        *("--tensor-parallel-size", str(card.gpus)),
        "--enable-prefix-caching",
        # With "auto", vLLM 0.11 takes the backend of the first schema for all, and one that it can't compile kills it.
        *("--structured-outputs-config", '{"backend": "guidance"}'),
        "--enable-auto-tool-choice",
        *("--tool-call-parser", card.tool_parser),
        *shlex.split(config.args),
        *config.flags,
        # Not to be chosen: interactive calls go ahead of batches by it.
        *("--scheduling-policy", "priority"),
    ]


@contextlib.contextmanager
def _errors_of_vllm() -> Iterator[None]:
    """vLLM's errors as ours. Which of them are the request's own fault changed its type over the versions."""
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError  # noqa: PLC0415 - loaded by `start`

    try:
        yield
    except EngineDeadError as error:
        raise EngineDead("the engine died while this request ran") from error
    except Exception as error:
        cause = error.__cause__ if isinstance(error, EngineGenerateError) and error.__cause__ else error
        # OverflowError: a number that has no place in 64 bits.
        if isinstance(cause, (ValueError, TypeError, OverflowError)) or "VLLMClientError" in _bases(cause):
            raise RequestRejected(_one_line(cause)) from error
        raise EngineBusy(f"the engine failed on this request: {type(cause).__name__}") from error


def _bases(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _one_line(error: BaseException) -> str:
    """The first line that says something. Not str(error): vLLM puts the refused value into that."""
    if isinstance(error, ValidationError):
        text = error.errors(include_url=False, include_input=False)[0]["msg"]
    else:
        text = str(error.args[0] if error.args else error)
    line = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return line.strip()[:500]


def _result(value: Any) -> Any:
    """What a getter answers. vLLM 0.11 declares some as coroutines that never wait."""
    if not inspect.iscoroutine(value):
        return value
    try:
        value.send(None)
    except StopIteration as done:
        return done.value
    raise EngineDead("vLLM's tokenizer is not there yet")


def _completion(output: Any, input_tokens: int) -> Completion:
    choice = output.outputs[0]
    if choice.finish_reason not in ("stop", "length", "repetition"):
        raise EngineBusy(f"the engine ended this request early: {choice.finish_reason}")
    # A number is the token that ended the turn.
    met = choice.stop_reason if isinstance(choice.stop_reason, str) else None
    reason = "max_tokens" if choice.finish_reason == "length" else "stop_sequence" if met else "end_turn"
    return Completion(choice.text, input_tokens, len(choice.token_ids), reason, met)


def _refusal(status_code: int, kind: str, message: str) -> Reply:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status_code}}
    return Reply(status_code, False, _one_chunk(body))


async def _one_chunk(body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    yield json.dumps(body).encode()
