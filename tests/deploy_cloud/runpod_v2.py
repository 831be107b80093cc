"""RunPod's REST API v2 on 127.0.0.1: endpoints and volumes in memory, refused as the documentation says (RFC 9457).

Beside it, on the same address: each endpoint's /health, and QStash's schedules.
"""

import itertools
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from jsonschema import Draft202012Validator

from tests.deploy_cloud.schemas import CREATE_ENDPOINT, CREATE_VOLUME, UPDATE_ENDPOINT, UPDATE_VOLUME, faults

Json = dict[str, Any]
KINDS = {
    "serverless": ("endpoints", CREATE_ENDPOINT, UPDATE_ENDPOINT),
    "network-volumes": ("networkVolumes", CREATE_VOLUME, UPDATE_VOLUME),
}


class Problem(Exception):
    """An answer with an error body."""

    def __init__(self, status: int, detail: str, errors: list[str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.body: Json = {"title": "Refused", "status": status, "detail": detail}
        if errors:
            self.body["errors"] = errors


@dataclass(frozen=True)
class Call:
    """One request as it came, in the order of arrival."""

    method: str
    path: str
    body: Any
    authorization: str


class FakeRunpod:
    """`key` is the only good one. `health` overrides the workers that an endpoint's /health tells (by name).

    `broken` holds what happens to the next calls of "METHOD kind", once each: a status (429, 503: not carried
    out), or "lost" (carried out, and the reply lost).
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.url = ""
        self.items: dict[str, dict[str, Json]] = {kind: {} for kind in KINDS}
        self.health: dict[str, Json] = {}
        self.broken: dict[str, list[int | str]] = {}
        self.calls: list[Call] = []
        # GPU types by data centre.
        self.gpus: dict[str, list[str]] = {"EU-RO-1": ["NVIDIA GeForce RTX 4090", "NVIDIA A100-SXM4-80GB"]}
        self.schedules: dict[str, Json] = {}
        self._numbers = itertools.count(1)

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v2/catalog/datacenters", self._data_centers),
                web.post("/v2/schedules/{destination:.+}", self._schedule),
                web.get("/jobs/{id}/health", self._health),
                web.route("*", "/v2/{kind}", self._collection),
                web.route("*", "/v2/{kind}/{id}", self._item),
            ]
        )
        return app

    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.method != "GET"]

    def methods(self) -> Counter[str]:
        return Counter(call.method for call in self.calls)

    def endpoint(self, name: str) -> Json:
        [found] = [item for item in self.items["serverless"].values() if item["name"] == name]
        return found

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        async def answer(body: Any) -> web.Response:
            kind = request.match_info["kind"]
            field, create, _ = KINDS[kind]
            if request.method == "GET":
                return web.json_response({field: list(self.items[kind].values())})
            return web.json_response(self._create(kind, create, body), status=201)

        return await self._answered(request, answer)

    async def _item(self, request: web.Request) -> web.StreamResponse:
        async def answer(body: Any) -> web.Response:
            kind, item_id = request.match_info["kind"], request.match_info["id"]
            if item_id not in self.items[kind]:
                raise Problem(404, "resource not found")
            if request.method == "PATCH":
                self._change(kind, item_id, body)
            return web.json_response(self.items[kind][item_id])

        return await self._answered(request, answer)

    async def _answered(self, request: web.Request, answer: Any) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        authorization = request.headers.get("Authorization", "")
        self.calls.append(Call(request.method, request.path, body, authorization))
        fault = next(iter(self._faults(f"{request.method} {request.match_info['kind']}")), None)
        try:
            if authorization != f"Bearer {self.key}":
                raise Problem(401, "missing or invalid bearer token")
            if isinstance(fault, int):
                raise Problem(fault, f"not now, {authorization}")
            reply: web.Response = await answer(body)
        except Problem as problem:
            headers = {"Retry-After": "7"} if problem.status == 429 else None
            return web.json_response(
                problem.body, status=problem.status, headers=headers, content_type="application/problem+json"
            )
        if fault == "lost":
            assert request.transport is not None
            request.transport.close()
        return reply

    def _faults(self, name: str) -> list[int | str]:
        waiting = self.broken.get(name, [])
        return [waiting.pop(0)] if waiting else []

    def _create(self, kind: str, schema: Draft202012Validator, body: Any) -> Json:
        _check(schema, body)
        number = next(self._numbers)
        if kind == "network-volumes":
            item = {"id": f"vol{number}", "type": "STANDARD", **body}
        else:
            item = self._new_endpoint(f"ep{number}", body)
        self.items[kind][item["id"]] = item
        return item

    def _new_endpoint(self, endpoint_id: str, body: Json) -> Json:
        if ("gpu" in body) == ("cpu" in body):
            raise Problem(400, "exactly one of gpu or cpu is required")
        _check_idle_timeout(body)
        for volume in body.get("networkVolumes", []):
            if volume not in self.items["network-volumes"]:
                raise Problem(400, "no such network volume")
        base = f"{self.url}/jobs/{endpoint_id}"
        defaults = {
            "timeout": 300000,
            "flashboot": "OFF",
            "env": {},
            "dataCenterIds": [],
            "networkVolumes": [],
        }
        item = {**defaults, **body, "id": endpoint_id, "createdAt": "2026-06-01T12:00:00Z"}
        item["requestUrls"] = {"run": f"{base}/run", "health": f"{base}/health"}
        if "gpu" in body:
            item["gpu"] = {**body["gpu"], "allowedCudaVersions": [], "minCudaVersion": None}
        else:
            item["cpu"] = [{**cpu, "memory": 2 * cpu["vcpuCount"]} for cpu in body["cpu"]]
        return item

    def _change(self, kind: str, item_id: str, body: Any) -> None:
        item = self.items[kind][item_id]
        _check(KINDS[kind][2], body)
        if kind == "network-volumes":
            if body.get("size", item["size"]) < item["size"]:
                raise Problem(400, "a volume can't shrink")
            item |= body
            return
        if ("cpu" in body and "gpu" in item) or ("gpu" in body and "cpu" in item):
            raise Problem(400, "the compute family can't change")
        _check_idle_timeout({**item, **body})
        merged = {name: {**item[name], **body[name]} for name in ("gpu", "workers") if name in body}
        item |= {**body, **merged}

    async def _health(self, request: web.Request) -> web.Response:
        item = self.items["serverless"].get(request.match_info["id"])
        if item is None or request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.Response(status=401, text="<html>no</html>")
        ready = {"ready": item["workers"]["min"], "initializing": 0, "throttled": 0, "unhealthy": 0}
        return web.json_response({"jobs": {}, "workers": self.health.get(item["name"], ready)})

    async def _data_centers(self, request: web.Request) -> web.Response:
        if "GPU_AVAILABILITY" not in request.query.get("include", ""):
            return web.json_response({"dataCenters": [{"id": name} for name in self.gpus]})
        listed = [
            {"id": name, "gpuAvailability": [{"id": gpu, "availability": "LOW"} for gpu in gpus]}
            for name, gpus in self.gpus.items()
        ]
        return web.json_response({"dataCenters": listed})

    async def _schedule(self, request: web.Request) -> web.Response:
        name = request.headers["Upstash-Schedule-Id"]
        self.schedules[name] = {
            "destination": request.match_info["destination"],
            "headers": dict(request.headers),
            "body": await request.json(),
        }
        return web.json_response({"scheduleId": name}, status=201)


def _check(schema: Draft202012Validator, body: Any) -> None:
    if found := faults(schema, body):
        raise Problem(422, "Request validation failed.", found)


def _check_idle_timeout(body: Json) -> None:
    if body["scaling"]["type"] == "REQUEST_COUNT" and "idleTimeout" in body.get("workers", {}):
        raise Problem(422, "idleTimeout does not apply to requestCount scaling")
