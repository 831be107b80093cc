"""A RunPod endpoint as this product uses it: four calls about jobs of batches, and one that waits for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shared.core.repair import JobState
from shared.ports.state import Endpoint


@dataclass(frozen=True)
class JobPolicy:
    """RunPod's limits for one job, in milliseconds: how long it may run, and until when it may exist at all."""

    execution_timeout_ms: int
    ttl_ms: int


class Jobs(Protocol):
    async def run(
        self, endpoint: Endpoint, job_input: Mapping[str, Any], webhook: str | None, policy: JobPolicy
    ) -> str:
        """Submit a job; returns its id. Raises EndpointUnavailable for every refusal, cut or timeout: the job may
        still have been accepted, which the fence makes harmless."""

    async def status(self, endpoint: Endpoint, job: str) -> JobState:
        """What RunPod says of a job; UNKNOWN where it gives no usable answer. Never raises for the endpoint."""

    async def cancel(self, endpoint: Endpoint, job: str) -> None:
        """Best effort: never raises for the endpoint."""

    async def health(self, endpoint: Endpoint) -> Mapping[str, Any]:
        """RunPod's own health object. Raises EndpointUnavailable."""


@dataclass(frozen=True)
class JobAnswer:
    """How a job ended: with its output, or with an error text, which its handler or RunPod gave."""

    output: Any = None
    error: str | None = None


class Calls(Protocol):
    async def ask(self, endpoint: Endpoint, job_input: Mapping[str, Any], wait_s: float) -> JobAnswer:
        """Submit a job and wait for its end. One that nobody waits for any more is cancelled.

        Raises EndpointUnavailable where the endpoint refused it or it was lost, EndpointTimeout after `wait_s`.
        """
