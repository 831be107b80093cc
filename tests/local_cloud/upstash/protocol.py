"""The REST protocol's pure part: a request's path, query and body to commands, and replies to JSON."""

import base64
import json
from typing import Any
from urllib.parse import unquote_to_bytes

from tests.local_cloud.upstash.resp import Command, Reply, ReplyError


class MalformedRequest(Exception):
    """The request is not a command at all; the text is what the client reads."""


def split_target(target: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A raw request target to its still encoded path and its decoded query, in order."""
    path, _, query = target.encode("utf-8", "surrogateescape").partition(b"?")
    pairs = (part.partition(b"=") for part in query.split(b"&") if part)
    return path, [(_decode_query(name), _decode_query(value)) for name, _, value in pairs]


def command_of_path(path: bytes, query: list[tuple[bytes, bytes]], body: bytes) -> Command:
    """`/set/foo?EX=100` with the body `bar` to SET foo bar EX 100. An empty body is no argument.

    Raises MalformedRequest.
    """
    command = [unquote_to_bytes(part) for part in path.removeprefix(b"/").split(b"/")]
    if not command[0]:
        raise MalformedRequest("ERR empty command")
    if body:
        command.append(body)
    for name, value in query:
        if name != b"_token":
            command += [name, value] if value else [name]
    return command


def command_of_body(body: bytes) -> Command:
    """A JSON array to a command.

    Raises MalformedRequest.
    """
    command = _command_of_json(_parse(body, "command"), "command")
    if not command:
        raise MalformedRequest("ERR empty command")
    return command


def commands_of_body(body: bytes, kind: str) -> list[Command]:
    """A JSON array of arrays to commands, of which some may be empty; `kind` names the request in errors.

    Raises MalformedRequest.
    """
    parsed = _parse(body, f"{kind} request")
    if not isinstance(parsed, list):
        raise MalformedRequest(f"ERR failed to parse {kind} request")
    if not parsed:
        raise MalformedRequest(f"ERR empty {kind} request")
    return [_command_of_json(item, f"{kind} request") for item in parsed]


def result_of(reply: Reply, is_base64: bool) -> dict[str, Any]:
    """`{"result": ...}` or `{"error": ...}`."""
    if isinstance(reply, ReplyError):
        return {"error": reply.text}
    return {"result": _value_of(reply, is_base64)}


def to_json(answer: object) -> bytes:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _value_of(reply: Reply, is_base64: bool) -> Any:
    if isinstance(reply, bytes):
        if is_base64 and reply != b"OK":
            return base64.b64encode(reply).decode("ascii")
        return reply.decode("utf-8", "replace")
    if isinstance(reply, list):
        return [_value_of(item, is_base64) for item in reply]
    return reply.text if isinstance(reply, ReplyError) else reply


def _parse(body: bytes, what: str) -> Any:
    try:
        # Numbers stay as they were written: 1.50 and 12345678901234567890 are arguments, not quantities.
        return json.loads(body, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        raise MalformedRequest(f"ERR failed to parse {what}") from None


def _command_of_json(parsed: Any, what: str) -> Command:
    if not isinstance(parsed, list):
        raise MalformedRequest(f"ERR failed to parse {what}")
    return [_argument_of_json(item, what) for item in parsed]


def _argument_of_json(item: Any, what: str) -> bytes:
    if isinstance(item, bool):
        return b"true" if item else b"false"
    try:
        if isinstance(item, str):
            return item.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        pass
    raise MalformedRequest(f"ERR failed to parse {what}")


def _decode_query(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
