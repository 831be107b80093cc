"""Which failpoints are armed, as files in a folder that the cloud and its workers share.

A failpoint has a folder of its own once it was set. A file `next-*` in it lets it fire once, `rate-0.1` on that share
of the occasions, and each `fired-*` stands for one that it did.
"""

import random
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from tests.local_cloud.fault_table import Next, Share


class Armed:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def set(self, name: str, when: Share | Next) -> None:
        own = self._folder / name
        own.mkdir(exist_ok=True)
        for entry in _listed(own, "next-", "rate-"):
            # A worker may be taking it this very moment.
            (own / entry).unlink(missing_ok=True)
        if isinstance(when, Share):
            (own / f"rate-{when.rate}").touch()
        else:
            for number in range(when.times):
                (own / f"next-{number}").touch()

    def fires(self, name: str) -> bool:
        """Whether the failpoint strikes on this occasion: of all processes, one alone takes each `next-*`."""
        own = self._folder / name
        fired = own / f"fired-{uuid4().hex}"
        for entry in _listed(own, "next-", "rate-"):
            kind, _, rate = entry.partition("-")
            if kind == "rate":
                if random.random() < float(rate):
                    fired.touch()
                    return True
                continue
            with suppress(FileNotFoundError):
                (own / entry).rename(fired)
                return True
        return False

    def when(self, name: str) -> Share | Next:
        """What is left of what was set."""
        own = self._folder / name
        rates = [float(entry.partition("-")[2]) for entry in _listed(own, "rate-")]
        return Share(rates[0]) if rates else Next(len(_listed(own, "next-")))

    def fired(self, name: str) -> int:
        return len(_listed(self._folder / name, "fired-"))


def _listed(folder: Path, *prefixes: str) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(prefixes))
    except FileNotFoundError:
        return []
