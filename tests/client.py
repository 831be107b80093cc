"""A plain caller of the batch handler over /runsync, as curl would do it: for flow tests and benchmarks."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


class OperationFailed(Exception):
    """The handler's typed error; `body` is what RunPod's `error` field carried."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(f"{body['status_code']} {body['error']['type']}: {body['error']['message']}")
        self.body = body
        self.status: int = body["status_code"]
        self.type: str = body["error"]["type"]
        self.param: str | None = body["error"].get("param")


@dataclass(frozen=True, slots=True)
class BatchClient:
    """One operation per call. `url` is the batch endpoint, `control_url` the local cloud's control server."""

    session: aiohttp.ClientSession
    url: str
    control_url: str

    async def call(self, operation: str, **fields: Any) -> dict[str, Any]:
        """The operation's output. Raises OperationFailed for a typed error."""
        return await self.send({"operation": operation, **fields})

    async def send(self, job_input: Any) -> dict[str, Any]:
        async with self.session.post(f"{self.url}/runsync?wait=60000", json={"input": job_input}) as answer:
            job = await answer.json(content_type=None)
        while job.get("status") not in FINAL:
            async with self.session.get(f"{self.url}/status-sync/{job['id']}") as answer:
                job = await answer.json(content_type=None)
        if job["status"] != "COMPLETED":
            raise OperationFailed(json.loads(job["error"]))
        output: dict[str, Any] = job["output"]
        return output

    async def wait(self, batch_id: str, *, poll_s: float = 0.05, timeout_s: float = 60.0) -> dict[str, Any]:
        """The status of a batch once it has ended. Raises TimeoutError with the last one."""
        end_s = monotonic() + timeout_s
        while True:
            status = await self.call("status", id=batch_id)
            if status["processing_status"] == "ended":
                return status
            if monotonic() > end_s:
                raise TimeoutError(f"not ended within {timeout_s} s: {status}")
            await asyncio.sleep(poll_s)

    async def lines(self, batch_id: str, **fields: Any) -> list[dict[str, Any]]:
        """All result lines, page by page."""
        lines: list[dict[str, Any]] = []
        page: dict[str, Any] = {}
        while True:
            answer = await self.call("results", id=batch_id, **page, **fields)
            lines += answer["results"]
            if answer["next_page"] is None:
                return lines
            page = {"page": answer["next_page"]}

    async def control(self, path: str, body: object = None) -> Any:
        """GET of the control server, or POST where there is a body."""
        method = "GET" if body is None else "POST"
        async with self.session.request(method, f"{self.control_url}{path}", json=body) as answer:
            return await answer.json()


@asynccontextmanager
async def batch_client(batch_url: str, api_key: str, control_url: str) -> AsyncIterator[BatchClient]:
    headers = {"Authorization": f"Bearer {api_key}"}
    timeout = aiohttp.ClientTimeout(total=90)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield BatchClient(session, batch_url, control_url)


def make_requests(count: int, text: str = "Write to lead {n}.", **metadata: str) -> list[dict[str, Any]]:
    """`count` requests; `{n}` in the text is the request's number."""
    return [
        {
            "custom_id": f"lead_{n}_email",
            "params": {
                "system": "You write short business e-mails.",
                "messages": [{"role": "user", "content": text.replace("{n}", str(n))}],
            },
            **({"metadata": metadata} if metadata else {}),
        }
        for n in range(count)
    ]
