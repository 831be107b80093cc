"""A real Redis engine with the product's real scripts, in virtual time, as Upstash answers over REST.

The engine's own clock can't be moved, so in front of each script stands a shim that gives it the virtual time and keeps
deadlines beside the keys: TIME, expiries and PTTL are the only commands that it replaces.
"""

import json
import socket
from hashlib import sha1
from pathlib import Path
from typing import Any

from tests.local_cloud.upstash.resp import Reply, ReplyError, ReplyParser, encode

_SHIM = """
local real, NOW_MS, DEADLINES = redis, tonumber(ARGV[#ARGV]), '__deadlines'
local function keep(key, at)
  if real.call('EXISTS', key) == 0 then return 0 end
  real.call('ZADD', DEADLINES, at, key)
  return 1
end
for _, key in ipairs(real.call('ZRANGEBYSCORE', DEADLINES, '-inf', NOW_MS)) do
  real.call('DEL', key)
  real.call('ZREM', DEADLINES, key)
end
local commands = {
  TIME = function() return {math.floor(NOW_MS / 1000), NOW_MS % 1000 * 1000} end,
  PEXPIRE = function(key, ms) return keep(key, NOW_MS + ms) end,
  PEXPIREAT = function(key, at) return keep(key, at) end,
  PTTL = function(key)
    if real.call('EXISTS', key) == 0 then return -2 end
    local at = real.call('ZSCORE', DEADLINES, key)
    return at and math.floor(tonumber(at) - NOW_MS) or -1
  end,
  SET = function(key, value, ...)
    local rest, ms = {}, nil
    local given, i = {...}, 1
    while i <= #given do
      if given[i] == 'PX' then ms, i = given[i + 1], i + 1 else rest[#rest + 1] = given[i] end
      i = i + 1
    end
    local reply = real.call('SET', key, value, unpack(rest))
    if reply then
      real.call('ZREM', DEADLINES, key)
      if ms then keep(key, NOW_MS + ms) end
    end
    return reply
  end,
  DEL = function(...)
    real.call('ZREM', DEADLINES, ...)
    return real.call('DEL', ...)
  end,
}
local redis = {call = function(name, ...)
  local own = commands[name]
  if own then return own(...) end
  return real.call(name, ...)
end}
"""
_PLAIN = (
    _SHIM
    + """
local command = {}
for i = 1, #ARGV - 1 do command[i] = ARGV[i] end
return redis.call(unpack(command))
"""
)
_FLAG = "#!lua flags=allow-key-locking\n"


class VirtualRedis:
    """Blocking and in order: one connection to the engine. Times are virtual milliseconds."""

    def __init__(self, socket_path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(socket_path))
        self._parser = ReplyParser()
        self._loaded: dict[str, str] = {}

    def clear(self) -> None:
        """As new: no key, and no script."""
        self._send("FLUSHALL")
        self._loaded.clear()

    def close(self) -> None:
        self._socket.close()

    def rest(self, command: list[Any], now_ms: int) -> dict[str, Any]:
        """The JSON body of the REST reply to one command."""
        name = str(command[0]).upper()
        if name == "EVALSHA":
            source = self._loaded.get(command[1])
            if source is None:
                return {"error": "NOSCRIPT No matching script. Please use EVAL."}
            return self._answer(self._send("EVAL", source, *command[2:], now_ms))
        if name == "EVAL":
            source = _SHIM + command[1].removeprefix(_FLAG)
            self._loaded[sha1(command[1].encode(), usedforsecurity=False).hexdigest()] = source
            return self._answer(self._send("EVAL", source, *command[2:], now_ms))
        return self._answer(self.plain(command, now_ms))

    def plain(self, command: list[Any], now_ms: int) -> Reply:
        return self._send("EVAL", _PLAIN, 0, str(command[0]).upper(), *command[1:], now_ms)

    def _answer(self, reply: Reply) -> dict[str, Any]:
        if isinstance(reply, ReplyError):
            return {"error": reply.text}
        return {"result": _plain(reply)}

    def _send(self, *command: Any) -> Reply:
        self._socket.sendall(encode([[_bytes(word) for word in command]]))
        while True:
            for reply, _ in self._parser.feed(self._socket.recv(1 << 20)):
                return reply


def _bytes(word: Any) -> bytes:
    if isinstance(word, bytes):
        return word
    return (word if isinstance(word, str) else json.dumps(word)).encode()


def _plain(reply: Reply) -> Any:
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, list):
        return [_plain(item) for item in reply]
    return reply
