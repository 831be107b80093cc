"""Where the project lies and how its text and pinned requirements are read; for the tests of the project itself."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,]+\])?==([A-Za-z0-9.+!]+)")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def pins(path: Path) -> dict[str, str]:
    """The exact pins of a requirements file: normal name -> version. Anything but `name==version` fails."""
    found = {}
    for line in text_of(path).splitlines():
        if requirement := line.split("#")[0].strip():
            match = PIN.fullmatch(requirement)
            assert match, f"{path.name}: not an exact pin: {requirement}"
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found
