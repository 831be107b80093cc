"""What a run says: lines on a stream, in which no secret is ever shown."""

import json
import sys
from collections.abc import Sequence
from typing import TextIO
from urllib.parse import quote

SHOWN_CHARS = 400


class Unexpected(Exception):
    """A check failed: what was expected, and what was seen instead."""

    def __init__(self, expected: str, seen: object) -> None:
        super().__init__(f"expected {expected}; saw {shown(seen)}")


def expect(fine: bool, expected: str, seen: object) -> None:
    """Raises Unexpected unless `fine`."""
    if not fine:
        raise Unexpected(expected, seen)


def shown(value: object) -> str:
    """A value as a person reads it: text as it is, anything else as JSON; cut where it gets long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}... ({len(text)} characters)"


class Report:
    def __init__(self, secrets: Sequence[str], stream: TextIO = sys.stdout) -> None:
        # Also as they stand in an address. The longest first: one may be a part of another.
        spellings = {
            spelling for secret in secrets if secret for spelling in (secret, quote(secret, safe=""))
        }
        self._secrets = sorted(spellings, key=len, reverse=True)
        self._stream = stream

    def say(self, text: str = "") -> None:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows under a head row, in columns: words to the left, numbers to the right."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = [
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self.say("  ".join(cells).rstrip())
            if number == 0:
                self.say("  ".join("-" * width for width in widths))
