"""The terminal: where lines go and where an answer comes from. No secret that it was told of passes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from http_calls import Pause
from service_env import HIDDEN

SECRET_LENGTH_MIN = 8


@dataclass
class Terminal:
    """`ask` is None where nobody can answer; `pause` waits so many seconds, `clock` gives seconds that only grow."""

    out: TextIO
    err: TextIO
    ask: Callable[[str], str] | None
    pause: Pause = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._secrets: set[str] = set()

    def hide(self, secret: str) -> None:
        # A shorter value is no secret, and hiding it would hide half the text.
        if len(secret) >= SECRET_LENGTH_MIN:
            self._secrets.add(secret)

    def say(self, text: str) -> None:
        self._write(self.out, text)

    def warn(self, text: str) -> None:
        self._write(self.err, text)

    def _write(self, stream: TextIO, text: str) -> None:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        stream.write(text + "\n")
        stream.flush()
