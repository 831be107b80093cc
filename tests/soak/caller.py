"""A caller of one batch: creates it whatever it takes, watches it, and holds every answer against the promises."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from tests.soak.plan import BatchPlan
from tests.soak.witness import name_of
from tests.soak.world import Answer, World

PHASES = ("collected", "submitted", "processing", "ended")
OUTCOMES = ("succeeded", "errored", "canceled", "expired")
# After the last fault: an execution timeout, its grace and a breaker's longest rest are all waited for.
RECOVERY_S = 3600.0
RECONCILE_S = 30.0
BUSY_TRIES = 3


class Caller:
    def __init__(self, world: World, plan: BatchPlan, rng: random.Random, faults_end_s: float) -> None:
        self.plan = plan
        self.id = ""
        self.cancel_answered_s: float | None = None
        self.polls_after_faults = 0
        self.lines: list[dict[str, Any]] = []
        self._world = world
        self._rng = rng
        self._faults_end_s = faults_end_s
        self._seen: Mapping[str, Any] | None = None

    async def run(self) -> None:
        await asyncio.sleep(self.plan.start_s)
        await asyncio.gather(*(self._create() for _ in range(self.plan.creates)))
        canceling = self._world.loop.outside(self._cancel(self.plan.cancel_s))
        ended = await self._until_ended()
        await canceling
        if not ended:
            return
        self.lines = await self._results()
        self._check_lines()
        self._fail_unless(await self._results() == self.lines, "the results of an ended batch changed")

    async def check_again(self) -> None:
        """Long after the end: late webhooks and thawed workers have changed nothing."""
        await self._status()
        self._fail_unless(await self._results() == self.lines, "the results of an ended batch changed later")

    async def check_told(self) -> None:
        """Whoever asked to be told of the end was, at least once and rightly."""
        deadline_s = max(self._faults_end_s, self._world.loop.time()) + RECOVERY_S
        status = await self._insist(operation="status", id=self.id)
        while status["callback"]["state"] != "delivered" and self._world.loop.time() < deadline_s:
            await asyncio.sleep(RECONCILE_S)
            await self._insist(operation="reconcile")
            status = await self._insist(operation="status", id=self.id)
        state = status["callback"]["state"]
        self._fail_unless(state == "delivered", f"its callback is {state} after {RECOVERY_S:g} s")
        fault = self._world.receiver.fault_of(status)
        self._fail_unless(not fault, fault)

    async def check_retry(self) -> None:
        """What failed is run again as one batch, however often that is asked for, and in its order."""
        failed = [line["custom_id"] for line in self.lines if line["status"] in ("errored", "expired")]
        if not failed:
            return
        first, second = [await self._insist(operation="retry_failed", id=self.id) for _ in range(2)]
        self._fail_unless(first["id"] == second["id"], "a retry was made twice")
        status = await self._insist(operation="status", id=first["id"])
        self._fail_unless(status["counts"]["total"] == len(failed), "not all that failed is retried")
        self._fail_unless(status["retry_of"] == self.id, "a retry does not say of what")
        deadline_s = max(self._faults_end_s, self._world.loop.time()) + RECOVERY_S
        while status["processing_status"] != "ended":
            if self._world.loop.time() > deadline_s:
                self._fail_unless(False, f"a retry has not ended after {RECOVERY_S:g} s")
                return
            await asyncio.sleep(5.0)
            status = await self._insist(operation="status", id=first["id"])
        again = [line["custom_id"] for line in await self._results(first["id"])]
        self._fail_unless(again == failed, "a retry's lines are not those that failed, in their order")

    async def delete(self) -> None:
        await self._insist(operation="delete", id=self.id)

    # Steps.

    async def _create(self) -> None:
        fields: dict[str, Any] = {"stage": self.plan.stage}
        callback_url = self._world.receiver.url(self.plan.key)
        if self.plan.expires_in_s is not None:
            fields["expires_in_s"] = self.plan.expires_in_s
        if self.plan.parts:
            uploaded = await self._upload(fields)
            made = await self._insist(operation="create", callback_url=callback_url, **uploaded)
        else:
            made = await self._insist(
                operation="create",
                idempotency_key=self.plan.key,
                requests=list(self.plan.requests),
                callback_url=callback_url,
                **fields,
            )
        self._fail_unless(self.id in ("", made["id"]), "one key made two batches")
        self.id = made["id"]

    async def _upload(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """All parts at once; what makes a batch of them."""
        requests, key = list(self.plan.requests), self.plan.key
        size = -(-len(requests) // self.plan.parts)
        parts = [requests[start : start + size] for start in range(0, len(requests), size)]
        calls = [{"part": number, "requests": part} for number, part in enumerate(parts)]
        self._rng.shuffle(calls)
        await asyncio.gather(
            *(self._insist(operation="upload", upload=key, **call, **fields) for call in calls)
        )
        return {"upload": key, "parts": len(parts), **({} if len(parts) > 1 else {"idempotency_key": key})}

    async def _cancel(self, after_s: float | None) -> None:
        if after_s is None:
            return
        await asyncio.sleep(after_s)
        while True:
            answer = await self._world.call(self._rng, operation="cancel", id=self.id)
            if answer.output is not None:
                self.cancel_answered_s = self._world.loop.time()
                return
            if answer.error is not None and answer.error.type == "conflict_error":
                return
            await asyncio.sleep(1.0)

    async def _until_ended(self) -> bool:
        deadline_s = max(self._faults_end_s, self._world.loop.time()) + RECOVERY_S
        while self._world.loop.time() < deadline_s:
            if self.plan.poll_s is None:
                # Nobody asks; a schedule comes by. Its end is seen from outside.
                await self._world.call(self._rng, operation="reconcile")
                await asyncio.sleep(RECONCILE_S)
                if self._stored_phase() == "ended":
                    return True
                continue
            if self._world.loop.time() > self._faults_end_s:
                self.polls_after_faults += 1
            await asyncio.gather(
                *(self._status() for _ in range(1 + self._rng.choice((0, 0, self.plan.storm))))
            )
            if self._seen is not None and self._seen["processing_status"] == "ended":
                return True
            if self._rng.random() < 0.05:
                await self._partial()
            await asyncio.sleep(self.plan.poll_s)
        self._fail_unless(False, f"not ended {RECOVERY_S:g} s after the last fault: {self._seen}")
        return False

    def _stored_phase(self) -> str | None:
        reply = self._world.redis.plain(["HGET", f"batch:{self.id}", "status"], self._world.now_ms)
        return reply.decode() if isinstance(reply, bytes) else None

    async def _status(self) -> None:
        before = self._seen
        answer = await self._world.call(self._rng, operation="status", id=self.id)
        if answer.output is None:
            self._check_refusal(answer)
            return
        self._check_status(before, answer.output)
        self._seen = self._later(answer.output)

    async def _partial(self) -> None:
        answer = await self._world.call(self._rng, operation="results", id=self.id, partial=True)
        if answer.output is None:
            self._check_refusal(answer)
            return
        wanted = [request["custom_id"] for request in self.plan.requests]
        got = [line["custom_id"] for line in answer.output["results"]]
        left = iter(wanted)
        self._fail_unless(all(name in left for name in got), "partial results out of order or doubled")

    async def _results(self, batch_id: str | None = None) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        page: dict[str, Any] = {}
        while True:
            answer = await self._insist(operation="results", id=batch_id or self.id, **page)
            lines += answer["results"]
            if answer["next_page"] is None:
                return lines
            page = {"page": answer["next_page"]}

    async def _insist(self, **payload: Any) -> Mapping[str, Any]:
        """Until it is answered: cuts and 503 are the platform's, any other refusal is a violation."""
        while True:
            answer = await self._world.call(self._rng, **payload)
            if answer.output is not None:
                return answer.output
            self._check_refusal(answer)
            if self._world.loop.time() > self._faults_end_s + 2 * RECOVERY_S:
                raise AssertionError(
                    f"{self.plan.key}: {payload['operation']} is never answered: {answer.error!r}"
                )
            await asyncio.sleep(1.0)

    # Promises.

    def _fail_unless(self, kept: bool, claim: str) -> None:
        if not kept:
            self._world.violations.append(f"{self.plan.key} ({self.id}): {claim}")

    def _check_refusal(self, answer: Answer) -> None:
        error = answer.error
        self._fail_unless(error is None or error.status_code == 503, f"refused: {error!r}")

    def _check_status(self, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
        counts = dict(now["counts"])
        total = counts.pop("total")
        self._fail_unless(sum(counts.values()) == total, f"counts do not add up: {now['counts']}")
        self._fail_unless(min(counts.values()) >= 0, f"negative counts: {now['counts']}")
        if before is None:
            return
        for outcome in OUTCOMES:
            back = now["settled"][outcome] < before["settled"][outcome]
            self._fail_unless(not back, f"settled {outcome} went back")
        phases = PHASES.index(before["processing_status"]), PHASES.index(now["processing_status"])
        self._fail_unless(phases[0] <= phases[1], "processing_status went back")
        if before["processing_status"] == "ended":
            # But for the telling of it.
            changed = {**now, "callback": None} != {**before, "callback": None}
            self._fail_unless(not changed, "an ended batch changed")

    def _later(self, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answers overtake each other: the later one has more settled."""
        seen = self._seen
        if seen is None or PHASES.index(status["processing_status"]) > PHASES.index(
            seen["processing_status"]
        ):
            return status
        return status if sum(status["settled"].values()) >= sum(seen["settled"].values()) else seen

    def _check_lines(self) -> None:
        wanted = [request["custom_id"] for request in self.plan.requests]
        got = [line["custom_id"] for line in self.lines]
        self._fail_unless(got == wanted, f"not one line per request in order: {len(got)} of {len(wanted)}")
        for request, line in zip(self.plan.requests, self.lines, strict=False):
            self._check_line(request, line)

    def _check_line(self, request: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        content = request["params"]["messages"][0]["content"]
        name, status = name_of(content), line["status"]
        log = self._world.log
        if status == "succeeded":
            text = line["message"]["content"][0]["text"]
            self._fail_unless(text in log.produced[name], f"{name}: a result that the engine never gave")
            self._fail_unless("[[kill]]" not in content and "[[error]]" not in content, f"{name} succeeded")
            return
        error = line["error"]
        expected = {
            "canceled": self.plan.cancel_s is not None,
            "expired": self.plan.expires_in_s is not None,
            "errored": (
                ("[[kill]]" in content and error["type"] == "worker_error")
                or ("[[error]]" in content and error["type"] == "invalid_request_error")
                or log.busy[name] >= BUSY_TRIES
                # An engine that died twice while it ran this request; under a bad image that excuses nothing.
                or (
                    error["type"] == "worker_error"
                    and log.died[name] >= self._world.settings.max_deaths
                    and not self._world.faults.is_bad_image
                )
            ),
        }
        self._fail_unless(expected[status], f"{name}: {status} {error}")
