"""RunPod in virtual time: the core of the local cloud's queue behind the HTTP calls that the product makes, with its
webhooks, and with faults."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.local_cloud.queue.core import EndpointQueue, Limits
from tests.local_cloud.queue.effects import JobEnded, JobsWaiting
from tests.local_cloud.queue.errors import JobNotFound
from tests.local_cloud.queue.job import (
    WEBHOOK_STATES,
    Job,
    Policy,
    Submission,
    brief_view,
    status_view,
    webhook_body,
)
from tests.soak.faults import RUN, STATUS, WEBHOOKS, Faults
from tests.soak.virtual import VirtualLoop

TAKE_HOLD_S = 8.0
CALLER_TIMEOUT_S = 15.0
ADVANCE_S = 1.0


class Endpoint:
    """One endpoint. `push` puts a webhook body into an inbox; `accepted` says when each batch's jobs were accepted;
    `late` are webhooks that come when all is over."""

    def __init__(
        self, name: str, loop: VirtualLoop, faults: Faults, push: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self._ids = Counter[str]()
        self.name = name
        self.core = EndpointQueue(self._new_id, Limits(ping_grace_s=20.0))
        self.late: list[tuple[str, str]] = []
        self.accepted: list[tuple[float, dict[str, Any]]] = []
        self._loop = loop
        self._faults = faults
        self._push = push
        self._waiting: list[asyncio.Future[None]] = []

    def _new_id(self) -> str:
        self._ids["job"] += 1
        return f"{self.name}-{self._ids['job']}"

    async def advance_for_ever(self) -> None:
        while True:
            await asyncio.sleep(ADVANCE_S)
            self.core.advance(self._loop.time())
            self._carry_out()

    # What callers do.

    async def call(self, request: httpx.Request, operation: str, job_id: str) -> httpx.Response:
        now_s = self._loop.time()
        if operation == "run":
            return await self._run(json.loads(request.content), now_s)
        if operation == "status":
            return await self._status(job_id, now_s)
        if operation == "cancel":
            try:
                job = self.core.cancel(job_id, now_s)
            except JobNotFound:
                return httpx.Response(404, json={"error": "job not found"})
            self._carry_out()
            return httpx.Response(200, json=brief_view(job))
        return httpx.Response(200, json=self.core.health())

    async def _run(self, body: dict[str, Any], now_s: float) -> httpx.Response:
        fault = self._faults.draw(now_s, *RUN)
        if fault == "run_429":
            return httpx.Response(429, json={"error": "too many requests"}, headers={"Retry-After": "3"})
        if fault == "run_429_html":
            return httpx.Response(429, text="<html>Too Many Requests</html>")
        if fault == "run_500":
            return httpx.Response(500, json={"error": "internal"})
        if fault == "run_cut_before":
            raise httpx.ReadError("cut")
        policy = Policy(body["policy"]["executionTimeout"] / 1000, body["policy"]["ttl"] / 1000)
        submission = Submission(body["input"], body.get("webhook"), policy)
        if fault == "run_doubled":
            # One POST makes two jobs, as when an edge sends it again.
            self.core.submit(submission, now_s)
        job = self.core.submit(submission, now_s)
        self.accepted.append((now_s, body["input"]))
        self._meddle(job, now_s)
        self._carry_out()
        if fault == "run_cut_after":
            raise httpx.ReadTimeout("no reply")
        return httpx.Response(200, json={"id": job.id, "status": "IN_QUEUE"})

    def _meddle(self, job: Job, now_s: float) -> None:
        fault = self._faults.draw(now_s, "job_vanishes", "job_fails_unstarted")
        if fault == "job_vanishes":
            self.core._forget(job)
        elif fault == "job_fails_unstarted":
            self.core._end(job, type(job.state).FAILED, {"error": "job timed out after 1 retries"}, now_s)

    async def _status(self, job_id: str, now_s: float) -> httpx.Response:
        fault = self._faults.draw(now_s, *STATUS)
        if fault == "status_slow":
            await asyncio.sleep(CALLER_TIMEOUT_S)
            raise httpx.ReadTimeout("slow")
        if fault == "status_404":
            return httpx.Response(404, json={"error": "job not found"})
        if fault == "status_500":
            return httpx.Response(500, text="oops")
        try:
            view = status_view(self.core.get(job_id))
        except JobNotFound:
            return httpx.Response(404, json={"error": "job not found"})
        if fault is not None:
            view["status"] = "COMPLETED" if fault == "status_says_completed" else "FAILED"
        return httpx.Response(200, json=view)

    # What workers do.

    async def take(self, worker_id: str, count: int) -> list[Job]:
        """A long poll."""
        end_s = self._loop.time() + TAKE_HOLD_S
        while True:
            jobs = self.core.take(worker_id, count, self._loop.time())
            self._carry_out()
            if jobs:
                if self._faults.draw(self._loop.time(), "delivered_twice"):
                    self._redeliver(jobs[0])
                return jobs
            wake = self._loop.create_future()
            self._waiting.append(wake)
            try:
                await asyncio.wait_for(wake, end_s - self._loop.time())
            except asyncio.TimeoutError:
                return []

    def finish(self, worker_id: str, job_id: str, posted: dict[str, Any]) -> None:
        if self._faults.draw(self._loop.time(), "result_refused"):
            return
        self.core.finish(worker_id, job_id, posted, self._loop.time())
        self._carry_out()

    def stop_one(self, worker_id: str) -> None:
        """`jobsToStop` out of the blue."""
        worker = self.core.workers.find(worker_id)
        if worker is not None and worker.jobs and self._faults.draw(self._loop.time(), "job_stopped"):
            worker.stops.append(next(iter(worker.jobs)))

    def remove_worker(self, worker_id: str) -> None:
        self.core.remove_worker(worker_id, self._loop.time())
        self._carry_out()

    def _redeliver(self, job: Job) -> None:
        """The platform takes a live worker for lost: the same job goes out once more."""
        job.requeues += 1
        self.core._enqueue(job, front=True)

    def _carry_out(self) -> None:
        for effect in self.core.drain_effects():
            if isinstance(effect, JobsWaiting):
                waiting, self._waiting = self._waiting, []
                for wake in waiting:
                    if not wake.done():
                        wake.set_result(None)
            elif isinstance(effect, JobEnded):
                self._send_webhook(effect.job)

    def _send_webhook(self, job: Job) -> None:
        url = job.submission.webhook
        if url is None or job.state not in WEBHOOK_STATES:
            return
        inbox = url.partition("/rpush/")[2].partition("?")[0]
        body = webhook_body(job)
        delay_s, times = self._faults.rng.uniform(0.05, 2.0), 1
        fault = self._faults.draw(self._loop.time(), *WEBHOOKS)
        text = json.dumps(body)
        if fault == "webhook_dropped":
            times = 0
        elif fault == "webhook_doubled":
            times = 2
        elif fault == "webhook_late":
            self.late.append((inbox, text))
            times = 0
        elif fault == "webhook_empty":
            text = ""
        elif fault == "webhook_oversized":
            text = json.dumps({**body, "output": "x" * 70_000})
        elif fault == "webhook_forged":
            forged = {**body, "status": "FAILED", "input": {**body["input"], "shard": 0}}  # type: ignore[dict-item]
            self._loop.outside(self._deliver(inbox, json.dumps(forged), delay_s))
        for _ in range(times):
            self._loop.outside(self._deliver(inbox, text, delay_s))

    async def deliver_late(self) -> None:
        """In reverse order."""
        while self.late:
            await self._push(*self.late.pop())

    async def _deliver(self, inbox: str, text: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._push(inbox, text)
