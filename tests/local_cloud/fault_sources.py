"""All faults of the cloud under one roof: each part of it is a source that knows its own by name."""

from collections.abc import Collection, Mapping
from typing import Protocol

import aiohttp

from tests.local_cloud.fault_table import FaultTable

Snapshot = dict[str, dict[str, object]]

_TIMEOUT = aiohttp.ClientTimeout(total=10)


class FaultSource(Protocol):
    """One part of the cloud that has faults."""

    async def names(self) -> Collection[str]: ...

    async def set(self, values: Mapping[str, object]) -> None:
        """Each value is a rate from 0 to 1, or `{"times": n}`; names and values were checked."""

    async def get(self) -> Snapshot:
        """`{name: {"rate" or "times", "effect", "fired"}}`."""


class FaultSources:
    """Sources as one; what they are told is checked for all of them first, so a mistake changes nothing anywhere."""

    def __init__(self) -> None:
        self._sources: list[FaultSource] = []

    def add(self, source: FaultSource) -> None:
        self._sources.append(source)

    async def set(self, values: Mapping[str, object]) -> None:
        """Raises UnknownFaults for names, ValueError for values; then nothing is changed."""
        owners = {name: source for source in self._sources for name in await source.names()}
        FaultTable(dict.fromkeys(owners, ""), seed="").set_values(values)
        for source in self._sources:
            own = {name: value for name, value in values.items() if owners[name] is source}
            if own:
                await source.set(own)

    async def get(self) -> Snapshot:
        return {name: fault for source in self._sources for name, fault in (await source.get()).items()}


class OwnFaults:
    """The faults of a table in this process."""

    def __init__(self, table: FaultTable) -> None:
        self._table = table

    async def names(self) -> Collection[str]:
        return self._table.effects

    async def set(self, values: Mapping[str, object]) -> None:
        self._table.set_values(values)

    async def get(self) -> Snapshot:
        return self._table.snapshot()


class RemoteFaults:
    """The faults of another process, at the `/_control/faults` of its control interface."""

    def __init__(self, control_url: str, token: str = "") -> None:
        self._url = f"{control_url}/_control/faults"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def names(self) -> Collection[str]:
        return await self.get()

    async def set(self, values: Mapping[str, object]) -> None:
        await self._ask("POST", values)

    async def get(self) -> Snapshot:
        return await self._ask("GET")

    async def _ask(self, method: str, body: object = None) -> Snapshot:
        async with (
            aiohttp.ClientSession(headers=self._headers, timeout=_TIMEOUT, raise_for_status=True) as session,
            session.request(method, self._url, json=body) as answer,
        ):
            found: Snapshot = await answer.json()
            return found
