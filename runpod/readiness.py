"""Waiting until endpoints have a worker that takes jobs, by each endpoint's /health."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from account import Json, jobs_url
from failures import NotReady, PlatformError
from http_calls import Http, Pause, json_object

POLL_S = 10.0


@dataclass(frozen=True)
class Readiness:
    """Waits until endpoints have a worker that takes jobs. `connect` makes a client for an address; `clock` gives
    seconds that only grow."""

    connect: Callable[[str], Http]
    say: Callable[[str], None]
    pause: Pause
    clock: Callable[[], float]

    def wait(self, endpoints: Mapping[str, Json], limit_s: float) -> None:
        """Raises NotReady with each endpoint's last answer."""
        end_s = self.clock() + limit_s
        waiting = dict(endpoints)
        said: dict[str, str] = {}
        while True:
            for name, endpoint in list(waiting.items()):
                ready, text = self._look(endpoint)
                if text != said.get(name):
                    self.say(f"{name}: {text}")
                    said[name] = text
                if ready:
                    del waiting[name]
            if not waiting:
                return
            if self.clock() >= end_s:
                late = "\n".join(f"{name} is not ready after {limit_s:g} s: {said[name]}" for name in waiting)
                raise NotReady(
                    f"{late}\nWhat it may be: docs/operations.md. The same command goes on waiting."
                )
            self.pause(min(POLL_S, max(0.0, end_s - self.clock())))

    def _look(self, endpoint: Json) -> tuple[bool, str]:
        http = self.connect(jobs_url(endpoint))
        try:
            workers = json_object(http.send("GET", "/health", attempts=1), "RunPod").get("workers") or {}
        except PlatformError as error:
            return False, str(error)
        finally:
            http.close()
        kinds = ("ready", "idle", "running", "initializing", "throttled", "unhealthy")
        counts = {kind: int(workers.get(kind) or 0) for kind in kinds}
        text = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no workers"
        up = counts["ready"] + counts["idle"] + counts["running"] > 0
        return up or not (endpoint.get("workers") or {}).get("min"), text
