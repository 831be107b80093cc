"""Webhook bodies that nobody should believe: anyone who learns the URL can send them."""

import random

from tests.local_cloud.queue.job import JobState, JsonObject

OVERSIZE_BYTES = 65_537


class Forger:
    """Forges bodies out of real ones: a false status, another shard of the batch, or the batch before."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(f"{seed}:forger")
        self._seen: list[JsonObject] = []

    def forged(self, body: JsonObject) -> JsonObject:
        """A body that looks like this one. Remembers the input of this one, for the next forgeries."""
        job_input = body["input"]
        assert isinstance(job_input, dict)
        self._seen = [*self._seen[-63:], job_input]
        states = [state.value for state in JobState if state.value != body["status"]]
        lies: list[JsonObject] = [
            {"output": None, "error": "a forged error"},
            {"input": {**job_input, "shard": self._random.randrange(1000)}},
            {"input": self._random.choice(self._seen)},
        ]
        lie = self._random.choice(lies)
        return {**body, "id": "forged-u1", "status": self._random.choice(states), **lie}


def oversized(body: JsonObject) -> JsonObject:
    """The same body, larger than anyone has to take."""
    return {**body, "output": "x" * OVERSIZE_BYTES}
