"""An app on the official Python SDK that does what it is told: `{"do": operation, ...}` a line, a line of JSON back.

Arguments: `sync` or `async`. The batch endpoint and its key come from the environment.
"""

import asyncio
import importlib
import inspect
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anthropic
import runpod_anthropic

KIND = sys.argv[1]
Arguments = dict[str, Any]


class Cut:
    """Carries calls to RunPod; the first answer gets lost on the way."""

    def __init__(self, httpx: Any) -> None:
        self._httpx = httpx
        self._sync = httpx.HTTPTransport()
        self._async = httpx.AsyncHTTPTransport()
        self._left = 1

    def handle_request(self, request: Any) -> Any:
        response = self._sync.handle_request(request)
        response.read()
        self._lose()
        return response

    async def handle_async_request(self, request: Any) -> Any:
        response = await self._async.handle_async_request(request)
        await response.aread()
        self._lose()
        return response

    def _lose(self) -> None:
        if self._left:
            self._left -= 1
            raise self._httpx.ReadError("cut")


def client_with(**options: Any) -> Any:
    arguments = {
        "batch_url": os.environ["LOCAL_BATCH_URL"],
        "api_key": os.environ["RUNPOD_API_KEY"],
        **options,
    }
    if KIND == "sync":
        http_client = runpod_anthropic.http_client(**arguments)
        return anthropic.Anthropic(api_key="unused", http_client=http_client)
    http_client = runpod_anthropic.async_http_client(**arguments)
    return anthropic.AsyncAnthropic(api_key="unused", http_client=http_client)


CLIENT = client_with()
BATCHES = CLIENT.messages.batches


async def plain(value: Any) -> Any:
    """What the SDK gives, awaited if it must be, as JSON."""
    if inspect.isawaitable(value):
        value = await value
    return value.to_dict(mode="json")


async def each(stream: Any) -> AsyncIterator[Any]:
    """The items of what the SDK streams, in either kind."""
    if inspect.iscoroutine(stream):
        stream = await stream
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


async def create(arguments: Arguments, batches: Any = BATCHES) -> Any:
    return await plain(batches.create(requests=arguments["requests"], extra_headers=arguments.get("headers")))


async def create_cut(arguments: Arguments) -> Any:
    httpx = importlib.import_module("httpx2" if int(anthropic.__version__.split(".")[0]) >= 1 else "httpx")
    return await create(arguments, client_with(max_retries=0, transport=Cut(httpx)).messages.batches)


async def retrieve(arguments: Arguments) -> Any:
    return await plain(BATCHES.retrieve(arguments["id"]))


async def request_id(arguments: Arguments) -> Any:
    batch = BATCHES.retrieve(arguments["id"])
    return (await batch if inspect.isawaitable(batch) else batch)._request_id


async def retrieve_with_key(arguments: Arguments) -> Any:
    client = client_with(api_key=arguments["api_key"])
    return await plain(client.messages.batches.retrieve(arguments["id"]))


async def list_ids(arguments: Arguments) -> Any:
    batches = each(BATCHES.list(limit=arguments["limit"]))
    return [(await anext(batches)).id for _ in range(arguments["count"])]


async def list_page(arguments: Arguments) -> Any:
    return await plain(BATCHES.list(**arguments))


async def cancel(arguments: Arguments) -> Any:
    return await plain(BATCHES.cancel(arguments["id"]))


async def delete(arguments: Arguments) -> Any:
    return await plain(BATCHES.delete(arguments["id"]))


async def results(arguments: Arguments) -> Any:
    return [line.to_dict(mode="json") async for line in each(BATCHES.results(arguments["id"]))]


async def first_result(arguments: Arguments) -> Any:
    stream = BATCHES.results(arguments["id"])
    stream = await stream if inspect.iscoroutine(stream) else stream
    line = await anext(each(stream))
    closed = stream.close()
    if inspect.isawaitable(closed):
        await closed
    return line.to_dict(mode="json")


async def message(arguments: Arguments) -> Any:
    return await plain(CLIENT.messages.create(**arguments))


async def models(_: Arguments) -> Any:
    return [model.id async for model in each(CLIENT.models.list())]


OPERATIONS: dict[str, Callable[[Arguments], Awaitable[Any]]] = {
    operation.__name__: operation
    for operation in (
        *(create, create_cut, retrieve, request_id, retrieve_with_key, list_ids, list_page, cancel, delete),
        *(results, first_result, message, models),
    )
}


def failure(error: anthropic.AnthropicError) -> dict[str, Any]:
    """What an app sees of an error."""
    body = getattr(error, "body", None)
    said = body.get("error") if isinstance(body, dict) else None
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "type": said["type"] if said else None,
        "message": str(error),
        "request_id": getattr(error, "request_id", None),
        "connection": isinstance(error, anthropic.APIConnectionError),
    }


async def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"gave": await OPERATIONS[asked.pop("do")](asked)}
        except anthropic.AnthropicError as error:
            answer = {"threw": failure(error)}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


asyncio.run(main())
