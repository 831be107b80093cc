"""One RunPod endpoint over plain HTTP: single calls as they are, and a job followed to its end.

Everything that is sent here is idempotent or harmless to repeat, so a call whose reply was lost is made again.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import httpx

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
# RunPod's edge cuts calls at about 100 s, and the job's id with it.
SYNC_WAIT_MS = 30_000
CALL_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
MAX_CONNECTIONS = 32
PAUSE_S = 1.0

Json = dict[str, Any]


class NoAnswer(Exception):
    """Nothing usable came within the time that was given; the text says what was seen last."""


class Rejected(NoAnswer):
    """The platform will not take such a call, however often it is made."""


@dataclass(frozen=True)
class Answer:
    """`body` is the JSON of the answer, None where it is none."""

    status_code: int
    body: Any
    text: str

    @property
    def fields(self) -> Json:
        return self.body if isinstance(self.body, dict) else {}

    def __str__(self) -> str:
        return f"{self.status_code} {self.text[:300]!r}"


def read_answer(response: httpx.Response) -> Answer:
    try:
        body = response.json()
    except ValueError:
        body = None
    return Answer(response.status_code, body, response.text)


def http_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=CALL_TIMEOUT, limits=httpx.Limits(max_connections=MAX_CONNECTIONS))


@dataclass(frozen=True)
class Endpoint:
    """`url` is https://api.runpod.ai/v2/<id>."""

    client: httpx.AsyncClient
    url: str
    api_key: str

    async def send(
        self, method: str, path: str, body: object = None, *, api_key: str | None = None
    ) -> Answer:
        """One call. Raises NoAnswer where the connection failed."""
        headers = {"Authorization": f"Bearer {api_key or self.api_key}"}
        try:
            return read_answer(
                await self.client.request(method, f"{self.url}/{path}", json=body, headers=headers)
            )
        except httpx.HTTPError as error:
            raise NoAnswer(f"{method} /{path.partition('?')[0]}: {type(error).__name__}") from None

    async def work(self, job_input: Mapping[str, Any], within_s: float, poll_s: float) -> Json:
        """Run a job to its end; the final job object. Sent again where its reply or its job was lost."""
        end_s = monotonic() + within_s
        seen = "nothing"
        while monotonic() < end_s:
            try:
                answer = await self.send("POST", f"runsync?wait={SYNC_WAIT_MS}", {"input": job_input})
                job = await self.follow(answer.fields, end_s, poll_s)
            except NoAnswer as reason:
                seen = str(reason)
            else:
                if job is not None:
                    return job
                seen = f"/runsync answered {answer}"
                if answer.status_code in (400, 401, 403, 413):
                    raise Rejected(seen)
            await asyncio.sleep(min(PAUSE_S, max(0.0, end_s - monotonic())))
        raise NoAnswer(f"no final job object within {within_s:g} s; last: {seen}")

    async def follow(self, job: Json, end_s: float, poll_s: float) -> Json | None:
        """The final object of a job that was submitted; None where the platform does not know it (any more)."""
        while job.get("status") not in FINAL:
            if not job.get("id"):
                return None
            if monotonic() > end_s:
                raise NoAnswer(f"job {job['id']} is still {job.get('status')}")
            await asyncio.sleep(poll_s)
            answer = await self.send("GET", f"status/{job['id']}")
            if answer.status_code == 404:
                return None
            if answer.status_code == 200:
                job = answer.fields
        return job


def error_of(job: Json) -> Json | None:
    """The service's own error in a failed job, which is JSON in a string; None for a failure of the platform."""
    try:
        body = json.loads(job.get("error") or "")
    except (TypeError, ValueError):
        return None
    return body if isinstance(body, dict) and "status_code" in body else None
