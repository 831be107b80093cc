"""The real engine and the real scripts at a time that stands still: scripts and TTLs alike know `now_ms` alone.

Spoken to over its socket: HTTP has tests of its own, and takes twenty times as long.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis

from shared.adapters.upstash import Upstash, script
from tests.local_cloud.upstash.scripts import without_key_locking

# Far ahead, so that nothing is due by the engine's own clock.
START_MS = 4_102_444_800_000

# ARGV[1] is the time itself then, because TIME adds nothing to it.
_FREEZE = """
local frozen_ms, engine = tonumber(ARGV[1]), redis
local redis = {call = function(command, ...)
  local words = {...}
  if command == 'TIME' then return {0, 0} end
  if command == 'PTTL' then
    local due = engine.call('PEXPIRETIME', words[1])
    return due < 0 and due or due - frozen_ms
  end
  if command == 'PEXPIRE' then command, words[2] = 'PEXPIREAT', frozen_ms + words[2] end
  for i, word in ipairs(words) do
    if command == 'SET' and word == 'PX' then words[i], words[i + 1] = 'PXAT', frozen_ms + words[i + 1] end
  end
  return engine.call(command, unpack(words))
end}
"""


@cache
def frozen(name: str) -> str:
    """The source of script `name`, its clock and its TTLs stopped."""
    flags, newline, rest = without_key_locking(script(name)[0].encode()).decode().partition("\n")
    return flags + _FREEZE + newline + rest


class FrozenRedis(Upstash):
    """`resend` sends every script twice, as after a lost reply; `resent` are (script, both answers)."""

    def __init__(self, socket_path: Path) -> None:
        self._redis: Any = Redis(unix_socket_path=str(socket_path), decode_responses=True, protocol=2)
        self._shas: dict[str, str] = {}
        self.now_ms = START_MS
        self.resend = False
        self.resent: list[tuple[str, Any, Any]] = []

    def empty(self) -> None:
        self._redis.flushall()
        self.now_ms = START_MS
        self.resend = False
        self.resent = []

    def advance(self, by_ms: int) -> None:
        """To later, where whatever is due by then is gone."""
        self.now_ms += by_ms
        names = self.names()
        for name, due_ms in zip(names, self.read([["PEXPIRETIME", name] for name in names]), strict=True):
            if 0 <= due_ms <= self.now_ms:
                self._redis.delete(name)

    def names(self) -> list[str]:
        names: list[str] = self._redis.keys("*")
        return sorted(names)

    def read(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Any] = pipe.execute()
        return answers

    async def run(self, name: str, keys: Sequence[str], args: Mapping[str, Any], bulk: str = "") -> Any:
        tail = [len(keys), *keys, str(self.now_ms), json.dumps(args), bulk]
        answer = self._run(name, tail)
        if self.resend:
            self.resent.append((name, json.loads(answer), json.loads(self._run(name, tail))))
        return json.loads(answer)

    async def execute(self, *command: Any) -> Any:
        if command[0] == "SET" and "PX" in command:
            *words, _, ttl_ms = command
            command = (*words, "PXAT", self.now_ms + ttl_ms)
        answer = self._redis.execute_command(*command)
        return _pairs(answer) if "WITHSCORES" in command else answer

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        return self.read(commands)

    async def close(self) -> None:
        self._redis.close()

    def _run(self, name: str, tail: Sequence[Any]) -> Any:
        if name not in self._shas:
            self._shas[name] = str(self._redis.script_load(frozen(name)))
        return self._redis.evalsha(self._shas[name], *tail)


def _pairs(flat: Sequence[str]) -> list[tuple[str, float]]:
    return [(flat[i], float(flat[i + 1])) for i in range(0, len(flat), 2)]
