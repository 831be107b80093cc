"""A caller whose creates must be refused: what was answered 4xx never runs."""

from __future__ import annotations

import random
from typing import Any

from tests.soak.world import World

MARK = "refused"


async def intrude(world: World, rng: random.Random, key: str) -> None:
    """Sends a bad create under `key` until it is answered."""
    bad = [_request("twice"), _request("twice")]
    while True:
        answer = await world.call(rng, operation="create", stage="email", idempotency_key=key, requests=bad)
        if answer.output is not None:
            world.violations.append("a bad create was accepted")
        if answer.output is not None or (answer.error is not None and answer.error.status_code == 400):
            return


def check_nothing_ran(world: World) -> None:
    ran = [name for name in world.log.begun_s if name.startswith(MARK)]
    if ran:
        world.violations.append(f"a refused create ran: {ran}")


def _request(custom_id: str) -> dict[str, Any]:
    content = f"<{MARK}-{custom_id}> x"
    return {"custom_id": custom_id, "params": {"messages": [{"role": "user", "content": content}]}}
