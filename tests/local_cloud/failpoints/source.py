"""The failpoints of the workers as a source of the cloud's faults."""

from collections.abc import Collection, Mapping
from pathlib import Path

from tests.local_cloud.failpoints.armed import Armed
from tests.local_cloud.failpoints.table import FAILPOINTS
from tests.local_cloud.fault_sources import Snapshot
from tests.local_cloud.fault_table import read_when


class Failpoints:
    """`folder` is the one that the workers are told of."""

    def __init__(self, folder: Path) -> None:
        self._armed = Armed(folder)

    async def names(self) -> Collection[str]:
        return FAILPOINTS

    async def set(self, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            self._armed.set(name, read_when(name, value))

    async def get(self) -> Snapshot:
        return {
            name: {
                **self._armed.when(name).described(),
                "effect": failpoint.effect,
                "fired": self._armed.fired(name),
            }
            for name, failpoint in FAILPOINTS.items()
        }
