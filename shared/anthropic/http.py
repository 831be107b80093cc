"""The operation `http`: Anthropic's API over our own operations. The only place that knows both dialects.

A whole HTTP request in, a whole HTTP response out: a refusal is a response like any other, so the job succeeds whatever
the status. What the routes hand on is our own dialect alone, and what they answer is made of its answers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from shared.anthropic.batches import BatchRoutes, Handle
from shared.anthropic.exchange import HttpRequest, HttpResponse
from shared.anthropic.messages import MessageRoutes
from shared.anthropic.views import error_view, status_code_of
from shared.core.routing import Router
from shared.errors import EndpointUnavailable, ServiceError
from shared.ports.jobs import Calls
from shared.ports.state import Endpoint

log = logging.getLogger(__name__)

Route = Callable[..., Awaitable[HttpResponse]]

# Stands for any one part of a path, which is handed to the route.
ANY = "*"


class AnthropicApi:
    """`handle` answers our own operations; `max_batch_bytes` bounds the requests of one call."""

    def __init__(
        self,
        handle: Handle,
        router: Router,
        calls: Calls,
        endpoints: Mapping[str, Endpoint],
        max_batch_bytes: int,
    ) -> None:
        batches = BatchRoutes(handle, router, max_batch_bytes)
        messages = MessageRoutes(router, calls, endpoints)
        self._routes: Mapping[tuple[str, ...], Mapping[str, Route]] = {
            ("v1", "messages"): {"POST": messages.create},
            ("v1", "messages", "batches"): {"POST": batches.create, "GET": batches.list},
            ("v1", "messages", "batches", ANY): {"GET": batches.retrieve, "DELETE": batches.delete},
            ("v1", "messages", "batches", ANY, "cancel"): {"POST": batches.cancel},
            ("v1", "messages", "batches", ANY, "results"): {"GET": batches.results},
            ("v1", "messages", "batches", "uploads", ANY, ANY): {"PUT": batches.upload},
            ("v1", "models"): {"GET": messages.models},
            ("v1", "models", ANY): {"GET": messages.model},
        }

    async def handle(self, payload: Mapping[str, Any], job: str | None) -> dict[str, Any]:
        """`{"status_code", "headers", "body"}`. Raises InvalidRequest or TooLarge where the input is no HTTP call."""
        request = HttpRequest.parse(payload, job)
        try:
            response = await self._answer(request)
        except ServiceError as error:
            response = _refused(error, request)
        return {
            "status_code": response.status_code,
            "headers": {"request-id": request.id, **response.headers},
            "body": response.body,
        }

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        for pattern, methods in self._routes.items():
            values = _matched(pattern, request.path)
            if values is None:
                continue
            if request.method not in methods:
                view = error_view("invalid_request_error", "Method not allowed", request.id)
                return HttpResponse.of(view, 405, {"allow": ", ".join(methods)})
            return await methods[request.method](request, *values)
        return HttpResponse.of(error_view("not_found_error", "Not found", request.id), 404)


def _matched(pattern: tuple[str, ...], path: tuple[str, ...]) -> list[str] | None:
    """The parts of the path that the pattern leaves open, None where they differ otherwise."""
    if len(pattern) != len(path):
        return None
    if any(wanted not in (ANY, part) for wanted, part in zip(pattern, path, strict=True)):
        return None
    return [part for wanted, part in zip(pattern, path, strict=True) if wanted == ANY]


def _refused(error: ServiceError, request: HttpRequest) -> HttpResponse:
    status_code = status_code_of(error)
    if status_code >= 500:
        log.warning("failed: %s", error.message, extra={"job": request.id})
    headers: dict[str, str] = {}
    if status_code == 409:
        # The official SDKs repeat every 409 otherwise, and it will be the same.
        headers["x-should-retry"] = "false"
    if isinstance(error, EndpointUnavailable) and error.retry_after_s is not None:
        headers["retry-after"] = f"{error.retry_after_s:.0f}"
    return HttpResponse.of(error_view(error.type, error.message, request.id), status_code, headers)
