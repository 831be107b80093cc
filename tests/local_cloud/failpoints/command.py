"""How a worker is started with failpoints: the launcher goes ahead of its module, a variable names the folder."""

from dataclasses import replace
from pathlib import Path

from tests.local_cloud.settings import Program

FOLDER = "LOCAL_FAILPOINTS_DIR"


def with_failpoints(program: Program, folder: Path) -> Program:
    """`program` is one that runs a module as `python -u -m MODULE`."""
    *start, module = program.command
    command = (*start, "tests.local_cloud.failpoints", module)
    return replace(program, command=command, env={**program.env, FOLDER: str(folder)})
