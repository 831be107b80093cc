"""The monitor port over Redis: the counters that the scripts keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.adapters import keys
from shared.adapters.upstash import Upstash
from shared.ports.monitor import Breaker, Figures, ModelFigures
from shared.ports.state import Endpoint

COMMANDS_PER_MODEL = 4


class RedisMonitor:
    def __init__(self, redis: Upstash, endpoints: Sequence[Endpoint]) -> None:
        self._redis = redis
        self._endpoints = endpoints

    async def breakers(self) -> Mapping[str, Breaker]:
        ids = [endpoint.id for endpoint in self._endpoints]
        declared = [
            key(endpoint) for endpoint in ids for key in (keys.rest, keys.failures, keys.deaths, keys.proof)
        ]
        answer = await self._redis.run("breakers", declared, {"endpoints": ids})
        return {endpoint: Breaker(**raw) for endpoint, raw in answer.items()}

    async def figures(self) -> Figures:
        commands: list[list[str]] = [["TIME"], ["ZCARD", keys.OPEN], ["HGETALL", keys.METRICS_BATCHES]]
        for endpoint in self._endpoints:
            commands += [
                ["HGETALL", keys.metrics(endpoint.model)],
                ["ZCARD", keys.queue(endpoint.model)],
                ["ZCARD", keys.waiting(endpoint.id)],
                ["ZCARD", keys.running(endpoint.id)],
            ]
        now, open_batches, batches, *rest = await self._redis.pipeline(commands)
        groups = [rest[i : i + COMMANDS_PER_MODEL] for i in range(0, len(rest), COMMANDS_PER_MODEL)]
        return Figures(
            now_s=float(now[0]),
            open_batches=int(open_batches),
            ended_batches=int(batches.get("count", 0)),
            latency_sum_s=float(batches.get("sum", 0)),
            latency_le={int(name[3:]): int(n) for name, n in batches.items() if name.startswith("le:")},
            models=[
                _model(endpoint.model, raw, int(queued), int(waiting), int(running))
                for endpoint, (raw, queued, waiting, running) in zip(self._endpoints, groups, strict=True)
            ],
        )


def _model(model: str, raw: Mapping[str, str], queued: int, waiting: int, running: int) -> ModelFigures:
    minutes: dict[int, tuple[int, int, int]] = {}
    for name, text in raw.items():
        if name.startswith("minute:"):
            minute, requests, tokens_in, tokens_out = (int(part) for part in text.split())
            minutes[minute] = (requests, tokens_in, tokens_out)
    counters = {name: int(value) for name, value in raw.items() if not name.startswith("minute:")}
    return ModelFigures(model, counters, minutes, queued, waiting, running)
