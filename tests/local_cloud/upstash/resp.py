"""RESP2, the engine's wire format: commands to bytes, and bytes to replies as they trickle in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Command = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class ReplyError:
    """An error reply. `text` keeps its prefix: `WRONGTYPE Operation against a key ...`."""

    text: str


Reply = None | int | bytes | ReplyError | list["Reply"]

_SIMPLE, _ERROR, _INTEGER, _BULK, _ARRAY = b"+-:$*"


def encode(commands: Iterable[Command]) -> bytes:
    """The commands back to back, ready for the wire."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        parts.extend(b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in command)
    return b"".join(parts)


class ReplyParser:
    """Keeps what it has parsed of an unfinished reply, so that no part of a long array is parsed twice."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Unfinished arrays, the outermost first, with their lengths.
        self._open: list[tuple[list[Reply], int]] = []
        self._size_bytes = 0

    def feed(self, data: bytes) -> list[tuple[Reply, int]]:
        """The replies that `data` completes, each with its size on the wire in bytes."""
        buffer = self._buffer
        buffer += data
        complete: list[tuple[Reply, int]] = []
        position = 0
        while (header_end := buffer.find(b"\r\n", position)) >= 0:
            kind, header, end = buffer[position], bytes(buffer[position + 1 : header_end]), header_end + 2
            value: Reply
            if kind == _BULK and header != b"-1":
                start, end = end, end + int(header) + 2
                if len(buffer) < end:
                    break
                value = bytes(buffer[start : end - 2])
            else:
                value = _plain_value(kind, header)
            self._size_bytes += end - position
            position = end
            if kind == _ARRAY and value == [] and header != b"0":
                self._open.append(([], int(header)))
            elif (whole := self._place(value)) is not None:
                complete.append((whole[0], self._size_bytes))
                self._size_bytes = 0
        del buffer[:position]
        return complete

    def _place(self, value: Reply) -> tuple[Reply] | None:
        """Puts a finished value where it belongs; gives the whole reply once nothing is open any more."""
        while self._open:
            items, length = self._open[-1]
            items.append(value)
            if len(items) < length:
                return None
            value = items
            self._open.pop()
        return (value,)


def _plain_value(kind: int, header: bytes) -> Reply:
    """The value of a header line that has no bulk body; an array opens empty."""
    if kind == _SIMPLE:
        return header
    if kind == _INTEGER:
        return int(header)
    if kind == _ERROR:
        return ReplyError(header.decode("utf-8", "replace"))
    if kind in (_BULK, _ARRAY):
        return None if header == b"-1" else []
    raise ValueError(f"not RESP2: {chr(kind)}{header!r}")
