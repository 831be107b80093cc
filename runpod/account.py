"""A RunPod account through its REST API v2: endpoints and network volumes, found by name, created once.

The API has no idempotency key. So after a create whose outcome is unknown, the account is asked by name before
anything is sent again: a lost reply must not leave two endpoints that both cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from failures import Ambiguous, PlatformError
from http_calls import Http, json_object

API_URL = "https://api.runpod.io"
JOBS_URL = "https://api.runpod.ai/v2"
CREATE_ATTEMPTS = 3
# RunPod may add this to the name of an endpoint that has FlashBoot.
FLASHBOOT_SUFFIX = " -fb"

Json = dict[str, Any]


class Account(Protocol):
    """What a plan needs to know."""

    def endpoint(self, name: str) -> Json | None: ...

    def volume(self, name: str) -> Json | None: ...


class EmptyAccount:
    """Stands in where no key is given: a plan that creates everything."""

    def endpoint(self, name: str) -> Json | None:
        return None

    def volume(self, name: str) -> Json | None:
        return None


class RunpodAccount:
    """The account that the key of `http` belongs to."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def endpoint(self, name: str) -> Json | None:
        """The endpoint of that name. Raises Ambiguous if there are several."""
        names = (name, name + FLASHBOOT_SUFFIX)
        return self._only(
            "endpoint", name, [e for e in self._list("serverless", "endpoints") if e.get("name") in names]
        )

    def volume(self, name: str) -> Json | None:
        found = [v for v in self._list("network-volumes", "networkVolumes") if v.get("name") == name]
        return self._only("network volume", name, found)

    def data_centers(self) -> list[Json]:
        return self._list("catalog/datacenters?include=GPU_AVAILABILITY", "dataCenters")

    def create_endpoint(self, body: Json) -> Json:
        return self._create("serverless", body, lambda: self.endpoint(body["name"]))

    def create_volume(self, body: Json) -> Json:
        return self._create("network-volumes", body, lambda: self.volume(body["name"]))

    def change_endpoint(self, endpoint_id: str, patch: Json) -> Json:
        return self._object(self._http.send("PATCH", f"/v2/serverless/{endpoint_id}", patch))

    def grow_volume(self, volume_id: str, size: int) -> Json:
        return self._object(self._http.send("PATCH", f"/v2/network-volumes/{volume_id}", {"size": size}))

    def _create(self, kind: str, body: Json, find: Callable[[], Json | None]) -> Json:
        for attempt in range(1, CREATE_ATTEMPTS + 1):
            try:
                return self._object(self._http.send("POST", f"/v2/{kind}", body, only_refused=True))
            except PlatformError as error:
                if not error.outcome_unknown:
                    raise
                self._http.pause(float(attempt))
                if (found := find()) is not None:
                    return found
                if attempt == CREATE_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _list(self, kind: str, field: str) -> list[Json]:
        items = self._object(self._http.send("GET", f"/v2/{kind}")).get(field)
        if not isinstance(items, list):
            raise PlatformError(f"RunPod answered without {field}")
        return [item for item in items if isinstance(item, dict)]

    def _object(self, answer: Any) -> Json:
        return json_object(answer, "RunPod")

    def _only(self, kind: str, name: str, found: list[Json]) -> Json | None:
        if len(found) > 1:
            ids = ", ".join(str(item.get("id")) for item in found)
            raise Ambiguous(
                f"the account has {len(found)} {kind}s named {name} ({ids}): rename or delete all but one"
            )
        return found[0] if found else None


def jobs_url(endpoint: Json) -> str:
    """The URL that an endpoint's jobs go to, which is the service's base URL."""
    run = (endpoint.get("requestUrls") or {}).get("run")
    if isinstance(run, str) and run.endswith("/run"):
        return run.removesuffix("/run")
    return f"{JOBS_URL}/{endpoint['id']}"
