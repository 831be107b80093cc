"""The engine's own log: what was computed, when and how often. It alone knows what a result must be."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from shared.engines.simulated import SimTiming, SimulatedEngine
from shared.errors import EngineBusy, EngineDead
from shared.ports.engine import Completion, Prompt
from tests.soak.faults import Faults
from tests.soak.virtual import Process

CANARY_NAME = "canary"


def name_of(content: str) -> str:
    """The request that a prompt belongs to: `<s1b0r3> ...`."""
    return content[1 : content.index(">")]


@dataclass
class Log:
    """By request name. Times are virtual seconds."""

    begun_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    done_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    produced: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    busy: Counter[str] = field(default_factory=Counter)
    died: Counter[str] = field(default_factory=Counter)
    kills: int = 0


class WitnessEngine(SimulatedEngine):
    """The simulated engine with a log outside its process. `[[kill]]` kills the process that runs it."""

    def __init__(
        self, timing: SimTiming, log: Log, faults: Faults, process: Process, now_s: Callable[[], float]
    ) -> None:
        super().__init__(timing)
        self._log = log
        self._faults = faults
        self._process = process
        self._now_s = now_s

    async def generate(self, prompt: Prompt) -> Completion:
        if ":canary" in prompt.request_id:
            self._disturb(CANARY_NAME)
            return await super().generate(prompt)
        content = str(prompt.params["messages"][-1]["content"])
        name = name_of(content)
        self._log.begun_s[name].append(self._now_s())
        if "[[kill]]" in content:
            self._log.kills += 1
            self._process.kill()
            await asyncio.Event().wait()
        if "[[busy-once]]" in content and content not in self._failed_once:
            self._log.busy[name] += 1
        self._disturb(name)
        done = await super().generate(prompt)
        if not self._alive:
            raise EngineDead("dead")
        self._log.done_s[name].append(self._now_s())
        produced = self._log.produced[name]
        # No two computations give the same text, so a result tells which one it is.
        text = f"<{name}> {done.text} #{len(produced)}"
        produced.append(text)
        return replace(done, text=text)

    def _disturb(self, name: str) -> None:
        fault = self._faults.draw(self._now_s(), "engine_busy", "engine_dies")
        if fault == "engine_busy":
            self._log.busy[name] += 1
            raise EngineBusy("busy")
        if fault == "engine_dies" or not self._alive:
            self._log.died[name] += 1
            self._alive = False
            raise EngineDead("dead")
