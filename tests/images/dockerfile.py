"""A Dockerfile, read as far as ours go: one stage, one WORKDIR, COPY of one source without options, exec-form CMD."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.unit.project import ROOT, text_of

HANDLERS = ("batch_api", "mistral", "llama")


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """The Dockerfile of one handler: its instructions in order, as `(word, arguments)`."""

    handler: str
    instructions: tuple[tuple[str, str], ...]

    def arguments(self, word: str) -> list[str]:
        """The arguments of each instruction of that name."""
        return [arguments for name, arguments in self.instructions if name == word]

    @property
    def workdir(self) -> PurePosixPath:
        [folder] = self.arguments("WORKDIR")
        return PurePosixPath(folder)

    @property
    def copies(self) -> list[tuple[Path, PurePosixPath]]:
        """Of each COPY the source, relative to the repository, and the target, absolute in the image."""
        pairs = []
        for arguments in self.arguments("COPY"):
            source, target = arguments.split()
            pairs.append((Path(source), self.workdir / target))
        return pairs

    @property
    def env(self) -> dict[str, str]:
        pairs = [
            pair.partition("=") for arguments in self.arguments("ENV") for pair in shlex.split(arguments)
        ]
        return {name: value for name, _, value in pairs}

    @property
    def command(self) -> list[str]:
        """The CMD, which must be in the exec form: a JSON list."""
        [arguments] = self.arguments("CMD")
        words: list[str] = json.loads(arguments)
        return words

    @property
    def installation(self) -> str:
        """The RUN that installs the requirements."""
        [run] = [run for run in self.arguments("RUN") if "pip install" in run]
        return run


def read_dockerfile(handler: str) -> Dockerfile:
    text = text_of(ROOT / "handlers" / handler / "Dockerfile")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    parts = [line.partition(" ") for line in lines if line.strip()]
    return Dockerfile(handler, tuple((word, arguments.strip()) for word, _, arguments in parts))
