"""RunPod's REST API of a queue endpoint (https://docs.runpod.io/serverless/endpoints): the calls we make."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any

import httpx
from pydantic import SecretStr

from shared.core.repair import JobState
from shared.errors import EndpointTimeout, EndpointUnavailable, PlatformError
from shared.ports.jobs import JobAnswer, JobPolicy
from shared.ports.state import Endpoint

TIMEOUT = httpx.Timeout(15.0, connect=5.0)
MAX_CONNECTIONS = 32
# So long RunPod holds a call of /runsync. Its edge cuts at about 100 s, and then the job's id is lost.
HOLD_S = 60.0
HOLD_TIMEOUT = httpx.Timeout(HOLD_S + 20.0, connect=5.0)
POLL_S = 1.0
# Beyond this a wish says nothing more (and 400 digits would be infinite).
RETRY_AFTER_CAP_S = 3600.0

_STATES = {
    "IN_QUEUE": JobState.QUEUED,
    "IN_PROGRESS": JobState.RUNNING,
    "RUNNING": JobState.RUNNING,
    "COMPLETED": JobState.COMPLETED,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.FAILED,
    "TIMED_OUT": JobState.FAILED,
}


class RunpodApi:
    """Two HTTP clients per process, so that calls that are held keep no other from its connection. Nothing here
    retries: a refused shard goes back to its queue, and whoever asked may ask again."""

    def __init__(self, api_key: SecretStr) -> None:
        headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"}
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS)
        context = httpx.create_ssl_context()
        self._client = httpx.AsyncClient(timeout=TIMEOUT, limits=limits, headers=headers, verify=context)
        self._held = httpx.AsyncClient(timeout=HOLD_TIMEOUT, limits=limits, headers=headers, verify=context)

    async def run(
        self, endpoint: Endpoint, job_input: Mapping[str, Any], webhook: str | None, policy: JobPolicy
    ) -> str:
        body: dict[str, Any] = {
            "input": job_input,
            "policy": {"executionTimeout": policy.execution_timeout_ms, "ttl": policy.ttl_ms},
        }
        if webhook:
            body["webhook"] = webhook
        answer = await self._send("POST", endpoint, "run", json=body)
        if answer.status_code != httpx.codes.OK:
            text = f"{endpoint.id} answered /run with {answer.status_code}"
            raise EndpointUnavailable(text, retry_after_s=_retry_after_s(answer))
        job = _object(answer).get("id")
        if not isinstance(job, str) or not job:
            raise EndpointUnavailable(f"{endpoint.id} answered /run without a job id")
        return job

    async def status(self, endpoint: Endpoint, job: str) -> JobState:
        try:
            answer = await self._send("GET", endpoint, f"status/{job}")
        except EndpointUnavailable:
            return JobState.UNKNOWN
        if answer.status_code == httpx.codes.NOT_FOUND:
            return JobState.GONE
        if answer.status_code != httpx.codes.OK:
            return JobState.UNKNOWN
        said = _object(answer)
        state = _STATES.get(str(said.get("status")), JobState.UNKNOWN)
        gave_up = state is JobState.FAILED and _type_of(said.get("error")) == PlatformError.type
        return JobState.GAVE_UP if gave_up else state

    async def cancel(self, endpoint: Endpoint, job: str) -> None:
        try:
            await self._send("POST", endpoint, f"cancel/{job}")
        except EndpointUnavailable:
            return

    async def health(self, endpoint: Endpoint) -> Mapping[str, Any]:
        answer = await self._send("GET", endpoint, "health")
        if answer.status_code != httpx.codes.OK:
            raise EndpointUnavailable(f"{endpoint.id} answered /health with {answer.status_code}")
        return _object(answer)

    async def ask(self, endpoint: Endpoint, job_input: Mapping[str, Any], wait_s: float) -> JobAnswer:
        end_s = monotonic() + wait_s
        # RunPod drops the job when nobody waits for it any more, also where we can't say so.
        limit_ms = round(1000 * wait_s)
        body = {"input": job_input, "policy": {"executionTimeout": limit_ms, "ttl": limit_ms}}
        path = f"runsync?wait={round(1000 * min(wait_s, HOLD_S))}"
        answer = await self._send("POST", endpoint, path, self._held, json=body)
        if answer.status_code != httpx.codes.OK:
            text = f"{endpoint.id} answered /runsync with {answer.status_code}"
            raise EndpointUnavailable(text, retry_after_s=_retry_after_s(answer))
        said = _object(answer)
        job = said.get("id")
        if not isinstance(job, str) or not job:
            raise EndpointUnavailable(f"{endpoint.id} answered /runsync without a job id")
        try:
            while (ended := _ended(endpoint, said)) is None:
                if monotonic() >= end_s:
                    raise EndpointTimeout(f"{endpoint.id} did not answer within {wait_s:g} s")
                await asyncio.sleep(POLL_S)
                said = await self._look(endpoint, job)
        except (EndpointTimeout, asyncio.CancelledError):
            await self.cancel(endpoint, job)
            raise
        return ended

    async def _look(self, endpoint: Endpoint, job: str) -> Mapping[str, Any]:
        """What RunPod says of a job; nothing where it gives no usable answer. Raises EndpointUnavailable where it knows
        none."""
        try:
            answer = await self._send("GET", endpoint, f"status/{job}")
        except EndpointUnavailable:
            return {}
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise EndpointUnavailable(f"{endpoint.id} lost the job")
        return _object(answer) if answer.status_code == httpx.codes.OK else {}

    async def close(self) -> None:
        await self._client.aclose()
        await self._held.aclose()

    async def _send(
        self,
        method: str,
        endpoint: Endpoint,
        path: str,
        client: httpx.AsyncClient | None = None,
        **kwargs: Any,
    ) -> httpx.Response:
        try:
            return await (client or self._client).request(method, f"{endpoint.url}/{path}", **kwargs)
        except httpx.HTTPError as error:
            operation = path.partition("/")[0].partition("?")[0]
            raise EndpointUnavailable(
                f"{endpoint.id} did not answer /{operation}: {type(error).__name__}"
            ) from None


def _ended(endpoint: Endpoint, said: Mapping[str, Any]) -> JobAnswer | None:
    """How a job ended, None while it goes on. Raises EndpointTimeout."""
    status = str(said.get("status"))
    if status == "TIMED_OUT":
        raise EndpointTimeout(f"{endpoint.id} was given too little time for the job")
    state = _STATES.get(status)
    if state is JobState.COMPLETED:
        return JobAnswer(output=said.get("output"))
    if state is JobState.FAILED:
        return JobAnswer(error=str(said.get("error") or status))
    return None


def _type_of(error: Any) -> str | None:
    """The type of an error that one of our handlers reported; None for RunPod's own texts."""
    try:
        body = json.loads(error)
        return str(body["error"]["type"])
    except (TypeError, ValueError, KeyError, RecursionError):
        return None


def _object(answer: httpx.Response) -> Mapping[str, Any]:
    """The JSON object of an answer; empty for anything else (RunPod's edge may answer HTML)."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after_s(answer: httpx.Response) -> float | None:
    """`Retry-After` as seconds: a number, or a date."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return min(float(text), RETRY_AFTER_CAP_S)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (TypeError, ValueError):
        return None
