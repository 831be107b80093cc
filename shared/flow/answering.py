"""One request through the engine: tried again for passing faults, its answer checked against what was asked for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.core.retry import GiveUp, retry_request
from shared.core.structured import Expectation, reseeded, tries
from shared.core.tools import Offer, offer_of
from shared.errors import EngineError, OutputInvalid
from shared.ports.engine import Completion, Engine, Prompt

REQUEST_ATTEMPTS = 3


@dataclass(frozen=True)
class _Wanted:
    """What an answer must be: calls of tools that were offered, or text of a form. None: any will do."""

    form: Expectation | None
    offer: Offer | None

    def check(self, done: Completion, max_tokens: int | None) -> None:
        cut_at = max_tokens if done.stop_reason == "max_tokens" else None
        if self.offer is not None:
            self.offer.check(done.calls, cut_at)
        if self.form is not None and not done.calls:
            self.form.check(done.text, cut_at)


async def answer(
    engine: Engine, request_id: str, params: Mapping[str, Any], *, urgent: bool = False
) -> Completion:
    """An answer that is what the request asks for, if need be one of several tries. Raises RequestRejected,
    OutputInvalid, EngineBusy or EngineDead. A check is Python alone and may take a while, so it runs beside the event
    loop."""
    if not params.get("response_format") and not params.get("tools") and not params.get("tool_choice"):
        return await generate(engine, request_id, params, urgent=urgent)
    wanted = await asyncio.to_thread(lambda: _Wanted(Expectation.of(params), offer_of(params)))
    number = 0
    while True:
        tried = reseeded(params, number, random.getrandbits(31))
        done = await generate(engine, f"{request_id}:{number}", tried, urgent=urgent)
        try:
            await asyncio.to_thread(wanted.check, done, params.get("max_tokens"))
        except OutputInvalid:
            number += 1
            if number == tries(params):
                raise
        else:
            return done


async def generate(
    engine: Engine, request_id: str, params: Mapping[str, Any], *, urgent: bool = False
) -> Completion:
    """Whatever the engine answers."""
    attempt = 1
    while True:
        try:
            return await engine.generate(Prompt(f"{request_id}:{attempt}", params, urgent))
        except EngineError as error:
            decision = retry_request(
                attempt, retryable=error.retryable, max_attempts=REQUEST_ATTEMPTS, rng=random.random
            )
            if isinstance(decision, GiveUp):
                raise
        await asyncio.sleep(decision.wait_s)
        attempt += 1
