"""Faults that are switched on by name: at a rate, or on the next few occasions. Each part of the cloud has a table."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass


class UnknownFaults(ValueError):
    """Names that are no fault."""

    def __init__(self, names: list[str], known: list[str]) -> None:
        super().__init__(f"unknown faults: {', '.join(names)}; known are: {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Share:
    """Fires on this share of the occasions, 0..1."""

    rate: float

    def described(self) -> dict[str, float]:
        return {"rate": self.rate}


@dataclass(frozen=True, slots=True)
class Next:
    """Fires on the next so many occasions, and then no more."""

    times: int

    def described(self) -> dict[str, int]:
        return {"times": self.times}


OFF = Share(0.0)


class FaultTable:
    """`effects` says what each fault does. Each draws from its own generator, so that adding one shifts no other."""

    def __init__(self, effects: Mapping[str, str], seed: str) -> None:
        self.effects = dict(effects)
        self._when: dict[str, Share | Next] = dict.fromkeys(effects, OFF)
        self._fired = dict.fromkeys(effects, 0)
        self._random = {name: random.Random(f"{seed}:{name}") for name in effects}

    def set_values(self, values: Mapping[str, object]) -> None:
        """Each value is a rate from 0 to 1, or `{"times": n}`.

        Raises UnknownFaults for names, ValueError for values; then nothing is changed.
        """
        if unknown := sorted(set(values) - set(self.effects)):
            raise UnknownFaults(unknown, list(self.effects))
        self._when.update({name: read_when(name, value) for name, value in values.items()})

    def fires(self, name: str) -> bool:
        """Whether the fault happens on this occasion."""
        when = self._when[name]
        if isinstance(when, Next):
            fired = when.times > 0
            self._when[name] = Next(max(0, when.times - 1))
        else:
            fired = when.rate > 0 and self._random[name].random() < when.rate
        self._fired[name] += fired
        return fired

    def snapshot(self) -> dict[str, dict[str, object]]:
        """`{name: {"rate" or "times", "effect", "fired"}}`; `fired` counts from the start."""
        return {
            name: {**self._when[name].described(), "effect": effect, "fired": self._fired[name]}
            for name, effect in self.effects.items()
        }

    def control(self, method: str, body: bytes) -> tuple[int, object]:
        """The status and the answer of a control interface: GET looks, POST sets values; both show the table."""
        if method == "POST":
            try:
                values = json.loads(body)
                if not isinstance(values, dict):
                    raise ValueError("the body must be a JSON object")
                self.set_values(values)
            except ValueError as error:
                return 400, {"error": str(error)}
        return 200, self.snapshot()


def read_when(name: str, value: object) -> Share | Next:
    """When a fault of that name shall happen. Raises ValueError."""
    match value:
        case {"times": int(times), **others} if not others and not isinstance(times, bool) and times >= 0:
            return Next(times)
        case int() | float() if not isinstance(value, bool) and 0 <= value <= 1:
            return Share(float(value))
    raise ValueError(f'{name} must be a number from 0 to 1, or {{"times": 0 or more}}')
