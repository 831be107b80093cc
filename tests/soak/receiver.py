"""Who is told of batches' ends, with faults of its own; and what must hold of that when a run is over."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from tests.soak.faults import RECEIVER, Faults

# An address, so that nobody asks for a name.
HOST = "10.0.0.1"


class Receiver:
    """`told` are the bodies that came, by the event's id: also those whose answer was lost or a refusal."""

    def __init__(self, faults: Faults, now_s: Callable[[], float]) -> None:
        self._faults = faults
        self._now_s = now_s
        self.told: dict[str, list[str]] = defaultdict(list)

    @staticmethod
    def url(key: str) -> str:
        return f"http://{HOST}/ended/{key}"

    def serve(self, request: httpx.Request) -> httpx.Response:
        fault = self._faults.draw(self._now_s(), *RECEIVER)
        if fault == "receiver_cut_before":
            raise httpx.ConnectError("connection refused")
        self.told[request.headers["webhook-id"]].append(request.content.decode())
        if fault == "receiver_cut_after":
            raise httpx.ReadError("connection reset")
        statuses = {"receiver_500": 500, "receiver_redirects": 302}
        return httpx.Response(statuses.get(fault or "", 204), headers={"location": f"http://{HOST}/inside"})

    def fault_of(self, status: Mapping[str, Any]) -> str:
        """Why the telling of an ended batch is wrong, empty where it is right."""
        bodies = self.told[f"evt_{status['id'].removeprefix('batch_')}"]
        if not bodies:
            return "nobody was told of its end"
        if len(set(bodies)) > 1:
            return "its end was told in two ways"
        data = json.loads(bodies[0])["data"]
        return "" if data == {name: status[name] for name in data} else "its end was told wrongly"
