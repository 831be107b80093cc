"""A model worker's job: one shard from its fenced start to its settled output.

All requests of a shard go to the engine at once; the engine queues by itself. The output is durable before the job
reports completion. A job that may not run (an old attempt, a stopped batch) returns at once and costs no GPU.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from time import monotonic
from typing import Annotated, Any

from pydantic import Field

from shared.core import codec
from shared.core.cards import EXECUTION_TIMEOUT_MIN_S
from shared.core.lifecycle import ShardState
from shared.core.requests import BATCH_ID, Wire
from shared.core.retry import backoff_s
from shared.core.shards import ShardRecord
from shared.core.views import ABSENT_MESSAGES, failed_line, message_view, succeeded_line
from shared.errors import (
    EngineDead,
    EngineError,
    InvalidRequest,
    ServiceError,
    StorageUnavailable,
    WorkerLeaving,
)
from shared.flow.answering import answer, generate
from shared.flow.feeder import Feeder
from shared.flow.outputs import ShardOutput
from shared.flow.room import Room
from shared.flow.running import RunningShard, RunningShards
from shared.ports.engine import Engine
from shared.ports.payloads import PAYLOAD_SLACK_MS, Payloads, input_key, output_key
from shared.ports.state import Endpoint, Repairs, Runs, ShardRef, Started

log = logging.getLogger(__name__)

# Nothing in it can be at fault: an engine that dies of it is.
CANARY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0.0}
ANY_EPOCH = -1


class ShardInput(Wire):
    """The input of a shard's job, as the feeder wrote it."""

    batch: Annotated[str, Field(pattern=f"^{BATCH_ID.pattern}$")]
    shard: Annotated[int, Field(ge=0)]
    attempt: Annotated[int, Field(ge=1)]
    endpoint: str
    alone: bool = False
    canary: bool = False


@dataclass(frozen=True)
class Worker:
    """`name` is this process's own; `room` is its engine's, for everybody who uses it."""

    name: str
    endpoint: Endpoint
    engine: Engine
    room: Room
    runs: Runs
    repairs: Repairs
    payloads: Payloads
    feeder: Feeder
    running: RunningShards

    async def run(self, job: str, shard_input: ShardInput) -> dict[str, Any]:
        """The job's output: a small summary, `{"state": "settled", ...}` or `{"state": "refused", "reason"}`."""
        if shard_input.endpoint != self.endpoint.id:
            wanted = (
                f"endpoint: this worker serves {self.endpoint.id}, the job is for {shard_input.endpoint:.100}"
            )
            raise InvalidRequest(f"{wanted}; its base URL differs between processes", param="endpoint")
        try:
            await self.room.enter(alone=shard_input.alone)
        except asyncio.CancelledError:
            await asyncio.shield(self.decline(shard_input))
            raise
        try:
            # While it waited, this worker may have come to its end.
            if self.running.leaving or not self.engine.alive:
                return await self.decline(shard_input)
            proven = shard_input.canary and await self._answers_canary(job, shard_input)
            return await self._run(job, shard_input, proven)
        finally:
            self.room.leave()

    async def _answers_canary(self, job: str, shard_input: ShardInput) -> bool:
        """Raises EngineDead where the engine dies even of that."""
        try:
            await generate(self.engine, f"{job}:canary", CANARY)
        except asyncio.CancelledError:
            await asyncio.shield(self.decline(shard_input))
            raise
        except EngineDead:
            raise
        except EngineError:
            return False
        return True

    async def _run(self, job: str, shard_input: ShardInput, proven: bool) -> dict[str, Any]:
        ref = ShardRef(shard_input.batch, shard_input.shard)
        started = await self.runs.start(
            ref, shard_input.attempt, job, self.name, self.endpoint, proven=proven
        )
        # A place in the endpoint's window is free now, whatever the verdict.
        self.feeder.kick(self.endpoint.model, [started.head] if started.head else [])
        if started.verdict != "run":
            return {"state": "refused", "reason": started.verdict}
        shard = RunningShard(ref, started.epoch)
        began_s = monotonic()
        self.running.add(shard)
        try:
            return await self._compute(shard, started, job)
        except (ServiceError, asyncio.CancelledError) as error:
            await asyncio.shield(self._release(shard, shard_input, error, monotonic() - began_s))
            raise
        finally:
            self.running.remove(shard)

    def give_back(self) -> None:
        """This worker ends: whatever still runs goes back, without blame, and another worker takes it at once."""
        self.running.leave()

    async def decline(self, shard_input: ShardInput) -> dict[str, Any]:
        """This worker ends and must not start the shard: it goes back as if it had never been submitted. Left alone,
        its job would count as one that ended before a worker came."""
        ref = ShardRef(shard_input.batch, shard_input.shard)
        # Claimed, if the job came faster than the note of its submission, which may come between two looks.
        for state in (ShardState.SUBMITTED, ShardState.CLAIMED, ShardState.SUBMITTED):
            seen = self._seen(ref, state, shard_input, ANY_EPOCH)
            if await self.repairs.requeue(ref, seen, delay_ms=0, blame=False, message="") != "changed":
                break
        self.feeder.kick(self.endpoint.model)
        return {"state": "refused", "reason": "leaving"}

    async def _compute(self, shard: RunningShard, started: Started, job: str) -> dict[str, Any]:
        [data] = await self.payloads.get([input_key(started.nonce, started.root)])
        if data is None:
            raise StorageUnavailable("the shard's input is not in storage")
        try:
            requests = codec.decode(data)[started.offset : started.offset + started.requests]
        except ValueError:
            # Not the requests' fault, nor this worker's.
            raise StorageUnavailable("the shard's input in storage is broken") from None
        began_s = monotonic()
        lines = await self._complete_all(shard, requests, job)
        if shard.verdict == "lost":
            return {"state": "refused", "reason": "lost"}
        self.running.remove(shard)
        output = ShardOutput(lines, round(1000 * shard.busy_s))
        settled = await self._settle(shard, started, output)
        self.feeder.kick(self.endpoint.model, [started.head])
        outcome = output.outcome()
        extra = {"batch": shard.ref.batch, "shard": shard.ref.shard, "epoch": shard.epoch}
        log.info("settled %d requests in %.2f s", len(lines), monotonic() - began_s, extra=extra)
        return {
            "state": "settled" if settled else "refused",
            "requests": len(lines),
            "succeeded": outcome.succeeded,
            "errored": outcome.errored,
            "input_tokens": outcome.input_tokens,
            "output_tokens": outcome.output_tokens,
        }

    async def _complete_all(
        self, shard: RunningShard, requests: list[dict[str, Any]], job: str
    ) -> list[dict[str, Any]]:
        """One line per request, in order. Where the shard is stopped, whatever was not done is marked so."""
        loop = asyncio.get_running_loop()
        shard.tasks = [
            # With its epoch: the same job may come back to this process while its last run still ends.
            loop.create_task(self._complete(shard, request, f"{job}:{shard.epoch}:{number}"))
            for number, request in enumerate(requests)
        ]
        if shard.verdict != "ok" or shard.leaving:
            # Told to stop before there was anything to stop.
            shard.cancel_tasks()
        try:
            # Only a dead engine raises here: nothing else that runs can be waited for then.
            done, _ = await asyncio.wait(shard.tasks, return_when=asyncio.FIRST_EXCEPTION)
            dead = next(
                (error for task in done if not task.cancelled() and (error := task.exception())), None
            )
        finally:
            if any(not task.done() for task in shard.tasks):
                # Wait until the engine has let go of them.
                shard.cancel_tasks()
                await asyncio.gather(*shard.tasks, return_exceptions=True)
        if dead is not None:
            raise dead
        if shard.leaving and any(task.cancelled() for task in shard.tasks):
            raise WorkerLeaving("this worker ends; the shard runs elsewhere")
        if shard.verdict == "ok" and any(task.cancelled() for task in shard.tasks):
            # Nobody asked for that, and a request without an answer would keep its batch from ending.
            raise EngineDead("the engine dropped a request")
        return [
            self._stopped_line(shard, request) if task.cancelled() else task.result()
            for request, task in zip(requests, shard.tasks, strict=True)
        ]

    def _stopped_line(self, shard: RunningShard, request: dict[str, Any]) -> dict[str, Any]:
        status = shard.verdict
        return failed_line(
            request["custom_id"], self.endpoint.model, status, status, ABSENT_MESSAGES.get(status, "")
        )

    async def _complete(
        self, shard: RunningShard, request: dict[str, Any], request_id: str
    ) -> dict[str, Any]:
        """One request's line. Raises EngineDead only."""
        custom_id, model = request["custom_id"], self.endpoint.model
        if refusal := request.get("refusal"):
            shard.errored += 1
            return failed_line(custom_id, model, "errored", refusal["type"], refusal["message"])
        began_s = monotonic()
        try:
            done = await answer(self.engine, request_id, request["params"])
        except EngineDead:
            raise
        except EngineError as error:
            shard.errored += 1
            line = failed_line(custom_id, model, "errored", error.type, error.message)
        except Exception as error:  # noqa: BLE001 - the edge of a request: its neighbours go on
            log.error("a request failed unexpectedly: %s", type(error).__name__)
            shard.errored += 1
            line = failed_line(custom_id, model, "errored", ServiceError.type, "Internal error")
        else:
            shard.succeeded += 1
            message = message_view(done.text, done.calls, done.stop_reason, done.stop_sequence)
            line = succeeded_line(custom_id, model, message, done.input_tokens, done.output_tokens)
        return {**line, "latency_ms": round(1000 * (monotonic() - began_s))}

    async def _settle(self, shard: RunningShard, started: Started, output: ShardOutput) -> bool:
        key = output_key(started.nonce, shard.ref.shard, shard.epoch)
        data = output.encode()
        inline = self.payloads.inline(data)
        if inline is None:
            await self.payloads.put({key: data}, started.keep_ms + PAYLOAD_SLACK_MS)
        return await self.runs.settle(
            shard.ref, shard.epoch, self.endpoint, key, output.outcome(), inline or ""
        )

    async def _release(
        self, shard: RunningShard, shard_input: ShardInput, error: BaseException, ran_s: float
    ) -> None:
        """Give back what can't be finished here, at once where this worker was told to go, else after a while; if
        even that fails, its lease runs out by itself."""
        stopped = isinstance(error, asyncio.CancelledError)
        told_to_go = stopped or isinstance(error, WorkerLeaving)
        # RunPod stops a job past its execution timeout in the same way. A shard that hangs must not do so for ever.
        overran = stopped and ran_s >= EXECUTION_TIMEOUT_MIN_S
        blame = overran or isinstance(error, EngineDead)
        delay_ms = int(1000 * backoff_s(shard_input.attempt, random.random)) if blame or not told_to_go else 0
        shard.cancel_tasks()
        seen = self._seen(shard.ref, ShardState.RUNNING, shard_input, shard.epoch)
        try:
            await self.repairs.requeue(
                shard.ref,
                seen,
                delay_ms=delay_ms,
                blame=blame,
                message=(
                    "Its job was stopped after a long time"
                    if overran
                    else "The engine died while this request ran"
                ),
            )
            self.feeder.kick(self.endpoint.model)
        except ServiceError as failure:
            log.warning(
                "release failed: %s", failure, extra={"batch": shard.ref.batch, "shard": shard.ref.shard}
            )

    def _seen(self, ref: ShardRef, state: ShardState, shard_input: ShardInput, epoch: int) -> ShardRecord:
        """The shard as this worker knows it; a requeue compares."""
        return ShardRecord(
            number=ref.shard,
            model=self.endpoint.model,
            state=state,
            attempt=shard_input.attempt,
            epoch=epoch,
            requests=0,
            endpoint=self.endpoint.id,
        )
