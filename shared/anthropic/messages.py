"""Anthropic's synchronous route and its models: one message through a model's endpoint, ahead of its batches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from shared.anthropic.exchange import HttpRequest, HttpResponse
from shared.anthropic.params import accept
from shared.anthropic.views import message_id, message_view, model_view, page_view
from shared.core.routing import Router
from shared.errors import EndpointUnavailable, InvalidRequest, NotFound, ServiceError
from shared.ports.jobs import Calls, JobAnswer
from shared.ports.state import Endpoint

# As long as Anthropic's own SDKs wait. An endpoint that starts from nothing needs minutes.
MESSAGE_WAIT_S = 600.0


class MessageRoutes:
    def __init__(self, router: Router, calls: Calls, endpoints: Mapping[str, Endpoint]) -> None:
        self._router = router
        self._calls = calls
        self._endpoints = endpoints

    async def create(self, request: HttpRequest) -> HttpResponse:
        params = await asyncio.to_thread(request.json)
        accepted = accept(self._router, request.header("x-batch-stage"), "message", params)
        job_input = {"message": {"params": accepted.request["params"]}}
        answer = await self._calls.ask(self._endpoints[accepted.card.name], job_input, MESSAGE_WAIT_S)
        return HttpResponse.of(message_view(message_id(request.id), _made(answer), "standard"))

    async def models(self, request: HttpRequest) -> HttpResponse:
        data = [model_view(card) for card in self._router.cards]
        return HttpResponse.of(page_view(data, has_more=False))

    async def model(self, request: HttpRequest, name: str) -> HttpResponse:
        card = self._router.find(name)
        if card is None:
            raise NotFound(f"model: {name!r:.100} not found", param="model")
        return HttpResponse.of(model_view(card))


def _made(answer: JobAnswer) -> Mapping[str, Any]:
    """The `{message, usage, model}` that a model endpoint answered. Raises what its worker or RunPod said instead."""
    if answer.error is not None:
        raise _reported(answer.error)
    # A handler that can stream answers with the list of its chunks.
    output = answer.output[0] if isinstance(answer.output, list) and answer.output else answer.output
    if not isinstance(output, dict) or "message" not in output:
        raise ServiceError("The model's endpoint gave no message")
    return output


def _reported(text: str) -> ServiceError:
    """An error in our own form as the one that was raised; any other text as a fault of the endpoint."""
    try:
        said = json.loads(text)
        status_code, message = int(said["status_code"]), str(said["error"]["message"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ServiceError("The model's endpoint failed")
    if status_code == 400:
        return InvalidRequest(message.removeprefix("message.").removeprefix("params."))
    return EndpointUnavailable(message) if status_code == 503 else ServiceError(message)
