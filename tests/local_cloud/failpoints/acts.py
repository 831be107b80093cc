"""What a failpoint does to the process that it strikes."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

from shared.ports.engine import Prompt

Arguments = MutableMapping[str, Any]

# What the simulated engine dies of.
_DEADLY = " [[dead]]"


async def kill(call: Arguments) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def term(call: Arguments) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def freeze(call: Arguments) -> None:
    # A worker leads a group of its own, with its ping process in it.
    os.killpg(os.getpgrp(), signal.SIGSTOP)


async def hang(call: Arguments) -> None:
    await asyncio.Event().wait()


async def engine_dies(call: Arguments) -> None:
    prompt: Prompt = call["prompt"]
    *others, last = prompt.params["messages"]
    messages = [*others, {**last, "content": last["content"] + _DEADLY}]
    call["prompt"] = replace(prompt, params={**prompt.params, "messages": messages})


async def out_of_memory(call: Arguments) -> None:
    raise MemoryError


ACTS: dict[str, Callable[[Arguments], Awaitable[None]]] = {
    act.__name__: act for act in (kill, term, freeze, hang, engine_dies, out_of_memory)
}
