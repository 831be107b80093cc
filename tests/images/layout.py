"""The file tree of an image, laid out in a folder as `docker build` would: COPY by COPY, obeying .dockerignore."""

import re
import shutil
from pathlib import Path

from tests.images.dockerfile import Dockerfile
from tests.unit.project import ROOT, text_of


def _regex(pattern: str) -> str:
    """Docker's patterns: `*` and `?` stay within a name, `**` spans folders; what is below a match matches too."""
    symbols = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return "".join(symbols.get(part) or re.escape(part) for part in parts) + "(?:/.*)?"


class Ignored:
    """What .dockerignore keeps out of a build: the last pattern that matches a path decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self._rules = [(re.compile(_regex(line.removeprefix("!"))), line.startswith("!")) for line in lines]

    def __contains__(self, path: Path) -> bool:
        let_through = [kept for regex, kept in self._rules if regex.fullmatch(path.as_posix())]
        return bool(let_through) and not let_through[-1]


def lay_out(dockerfile: Dockerfile, image: Path) -> Path:
    """Copies what the image copies below `image`, its root, and returns the folder of its WORKDIR.

    Raises FileNotFoundError for a COPY that finds nothing, as a build would.
    """
    ignored = Ignored(text_of(ROOT / ".dockerignore"))
    for source, target in dockerfile.copies:
        whole = ROOT / source
        files = [whole] if whole.is_file() else [path for path in whole.rglob("*") if path.is_file()]
        kept = [path for path in files if path.relative_to(ROOT) not in ignored]
        if not kept:
            raise FileNotFoundError(f"COPY {source}: nothing in the build's context")
        for path in kept:
            place = image / target.relative_to("/") / path.relative_to(whole)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    return image / dockerfile.workdir.relative_to("/")
