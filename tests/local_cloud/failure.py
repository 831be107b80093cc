"""Why the local cloud could not start: one line for a person, with the end of the log of what failed."""

from pathlib import Path

_TAIL_LINES = 12
_TAIL_BYTES = 8_192


class StartFailure(Exception):
    """A part did not start; the text names it and shows the end of its log."""


def failure_of(part: str, reason: str, log_path: Path) -> StartFailure:
    return StartFailure(f"{part} {reason}; the end of {log_path}:\n{_tail(log_path)}")


def _tail(log_path: Path) -> str:
    try:
        with log_path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError as error:
        return f"  ({error})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-_TAIL_LINES:])
