"""The routes of Anthropic's Message Batches API, over our own operations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from shared.anthropic.exchange import HttpRequest, HttpResponse
from shared.anthropic.params import RequestsBody, UploadBody, accept_all
from shared.anthropic.views import batch_view, line_view, page_view
from shared.core.requests import parse
from shared.core.routing import Router

# `Operations.handle`: an input and the id of its RunPod job in, an output out.
Handle = Callable[[Mapping[str, Any], str | None], Awaitable[dict[str, Any]]]

JSONL = "application/x-jsonl"
LIMIT_DEFAULT, LIMIT_MAX = 20, 1000


class BatchRoutes:
    def __init__(self, handle: Handle, router: Router, max_batch_bytes: int) -> None:
        self._handle = handle
        self._router = router
        self._max_batch_bytes = max_batch_bytes
        self._one_at_a_time = asyncio.Lock()

    async def create(self, request: HttpRequest) -> HttpResponse:
        # A large body keeps a CPU busy for seconds: beside the event loop, and one at a time.
        async with self._one_at_a_time:
            wanted = await asyncio.to_thread(self._wanted, request)
        made = await self._handle({"operation": "create", **wanted, **_create_options(request)}, request.id)
        return await self._batch(request, "status", made["id"])

    async def upload(self, request: HttpRequest, key: str, part: str) -> HttpResponse:
        number = request.number("part", {"part": part})
        async with self._one_at_a_time:
            wanted = await asyncio.to_thread(self._requests, request)
        place = {"operation": "upload", "upload": key, "part": number}
        return HttpResponse.of(await self._handle({**place, **wanted, **_batch_options(request)}, None))

    async def list(self, request: HttpRequest) -> HttpResponse:
        query = request.query
        limit = request.number("limit", query)
        places = {name: query[name] for name in ("after_id", "before_id") if query.get(name)}
        wanted = {"operation": "list", "limit": LIMIT_DEFAULT if limit is None else limit, **places}
        page = await self._handle(wanted, None)
        data = [batch_view(status, _results_url(request, status["id"])) for status in page["batches"]]
        return HttpResponse.of(page_view(data, has_more=page["next_page"] is not None))

    async def retrieve(self, request: HttpRequest, batch_id: str) -> HttpResponse:
        return await self._batch(request, "status", batch_id)

    async def cancel(self, request: HttpRequest, batch_id: str) -> HttpResponse:
        return await self._batch(request, "cancel", batch_id)

    async def delete(self, request: HttpRequest, batch_id: str) -> HttpResponse:
        await self._handle({"operation": "delete", "id": batch_id}, None)
        return HttpResponse.of({"id": batch_id, "type": "message_batch_deleted"})

    async def results(self, request: HttpRequest, batch_id: str) -> HttpResponse:
        """One page of lines; the header `x-next-page` names the next one."""
        wanted: dict[str, Any] = {"operation": "results", "id": batch_id}
        if token := request.query.get("page"):
            wanted["page"] = token
        if request.query.get("partial") == "true":
            wanted["partial"] = True
        page = await self._handle(wanted, None)
        body = await asyncio.to_thread(_jsonl, batch_id, page["results"])
        headers = {"content-type": JSONL}
        if page["next_page"] is not None:
            headers["x-next-page"] = page["next_page"]
        return HttpResponse(body, headers=headers)

    async def _batch(self, request: HttpRequest, operation: str, batch_id: str) -> HttpResponse:
        status = await self._handle({"operation": operation, "id": batch_id}, None)
        return HttpResponse.of(batch_view(status, _results_url(request, batch_id)))

    def _wanted(self, request: HttpRequest) -> dict[str, Any]:
        body = request.json()
        if "upload" not in body:
            return self._requests(request, body)
        upload = parse(UploadBody, body).upload
        return {"upload": upload.key, "parts": upload.parts}

    def _requests(self, request: HttpRequest, body: dict[str, Any] | None = None) -> dict[str, Any]:
        requests = parse(
            RequestsBody, request.json() if body is None else body, self._max_batch_bytes
        ).requests
        return {"requests": accept_all(self._router, request.header("x-batch-stage"), requests)}


def _batch_options(request: HttpRequest) -> dict[str, Any]:
    """What our own API offers beyond Anthropic's, by header: of a batch, or of an upload as a whole."""
    options: dict[str, Any] = {}
    if stage := request.header("x-batch-stage"):
        options["stage"] = stage
    name = "x-batch-expires-in-s"
    if (seconds := request.number(name, request.headers)) is not None:
        options["expires_in_s"] = seconds
    return options


def _create_options(request: HttpRequest) -> dict[str, Any]:
    named = {
        "idempotency_key": "idempotency-key",
        "priority": "x-batch-priority",
        "callback_url": "x-batch-callback-url",
    }
    given = {option: text for option, header in named.items() if (text := request.header(header))}
    return {**given, **_batch_options(request)}


def _results_url(request: HttpRequest, batch_id: str) -> str:
    return f"{request.origin}/v1/messages/batches/{batch_id}/results"


def _jsonl(batch_id: str, lines: list[dict[str, Any]]) -> str:
    texts = [
        json.dumps(line_view(batch_id, line), ensure_ascii=False, separators=(",", ":")) for line in lines
    ]
    body = "\n".join([*texts, ""])
    # Valid in JSON, but some readers of lines end one there.
    for separator, escaped in (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        body = body.replace(separator, escaped)
    return body
