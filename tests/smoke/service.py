"""The batch service as a caller sees it: one operation per call. Whatever batches a run made, it removes."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from tests.smoke.endpoint import Endpoint, Json, NoAnswer, Rejected, error_of
from tests.smoke.report import Unexpected, expect

CALL_S = 300.0
CLEAN_UP_S = 120.0
CLEANED_AT_ONCE = 4
PLATFORM_FAILURES = 3
RANKS = {"collected": 0, "submitted": 1, "processing": 2, "ended": 3}


class Refused(Exception):
    """The service's typed error."""

    def __init__(self, body: Json) -> None:
        self.body = body
        error = body.get("error") or {}
        self.status_code = body.get("status_code")
        self.type: str | None = error.get("type")
        self.param: str | None = error.get("param")
        self.message = str(error.get("message"))
        super().__init__(f"{self.status_code} {self.type}: {self.message} (param {self.param})")


class Service:
    """`wait_s` bounds every wait for a batch."""

    def __init__(self, endpoint: Endpoint, wait_s: float, poll_s: float) -> None:
        self._endpoint = endpoint
        self._wait_s = wait_s
        self._poll_s = poll_s
        self._made: set[str] = set()
        self._unanswered: dict[str, Json] = {}
        self._run = secrets.token_hex(6)
        self._keys = 0

    async def call(self, operation: str, **fields: Any) -> Json:
        """The operation's output. Raises Refused, or NoAnswer where the platform let us down."""
        job: Json = {}
        for _ in range(PLATFORM_FAILURES):
            job = await self._endpoint.work({"operation": operation, **fields}, CALL_S, self._poll_s)
            if job["status"] == "COMPLETED":
                return self._note(operation, job.get("output"))
            if error := error_of(job):
                raise Refused(error)
        raise NoAnswer(f"{operation} {job.get('status')} without an error of the service: {job.get('error')}")

    def _note(self, operation: str, output: Any) -> Json:
        """The output; a batch that was made is remembered, also one that should not have been."""
        if not isinstance(output, dict):
            raise Unexpected(f"an object as output of {operation}", output)
        if operation == "create" and isinstance(output.get("id"), str):
            self._made.add(output["id"])
        return output

    def new_key(self) -> str:
        """An idempotency key that nobody used before."""
        self._keys += 1
        return f"smoke-{self._run}-{self._keys}"

    async def create(self, stage: str | None, requests: Sequence[Mapping[str, Any]], **fields: Any) -> Json:
        """A create under a key of its own, so that a lost reply makes no second batch."""
        given = {"requests": list(requests), "idempotency_key": self.new_key(), **fields}
        if stage:
            given["stage"] = stage
        self._unanswered[given["idempotency_key"]] = given
        made = await self.call("create", **given)
        del self._unanswered[given["idempotency_key"]]
        return made

    async def wait(self, batch_id: str) -> Json:
        """The status of a batch that has ended. On the way, each status is held against the one before."""
        end_s = monotonic() + self._wait_s
        rank = 0
        while True:
            status = await self.call("status", id=batch_id)
            check_progress(status, rank)
            rank = RANKS[status["processing_status"]]
            if status["processing_status"] == "ended":
                return status
            expect(monotonic() < end_s, f"batch {batch_id} to end within {self._wait_s:g} s", status)
            await asyncio.sleep(self._poll_s)

    async def lines(self, batch_id: str, **fields: Any) -> list[Json]:
        """All result lines, page by page."""
        lines: list[Json] = []
        page: dict[str, Any] = {}
        while True:
            answer = await self.call("results", id=batch_id, **page, **fields)
            lines += answer["results"]
            if answer["next_page"] is None:
                return lines
            page = {"page": answer["next_page"]}

    async def complete(
        self, stage: str | None, requests: Sequence[Mapping[str, Any]]
    ) -> tuple[Json, list[Json]]:
        """A batch from its create to its end: last status and result lines."""
        batch_id = (await self.create(stage, requests))["id"]
        status = await self.wait(batch_id)
        return status, await self.lines(batch_id)

    async def delete(self, batch_id: str) -> Json:
        answer = await self.call("delete", id=batch_id)
        self._made.discard(batch_id)
        return answer

    async def clean_up(self) -> list[str]:
        """Cancel and delete every batch of this run; a line for each that is left behind."""
        left = [await self._resolve(given) for given in self._unanswered.values()]
        gate = asyncio.Semaphore(CLEANED_AT_ONCE)

        async def remove(batch_id: str) -> str | None:
            async with gate:
                try:
                    await asyncio.wait_for(self._remove(batch_id), CLEAN_UP_S)
                except (Refused, NoAnswer, Unexpected) as reason:
                    return f"{batch_id}: {reason}"
                except TimeoutError:
                    return f"{batch_id}: not removed within {CLEAN_UP_S:g} s"
            return None

        left += await asyncio.gather(*(remove(batch_id) for batch_id in sorted(self._made)))
        return [line for line in left if line is not None]

    async def _resolve(self, given: Json) -> str | None:
        """A create whose answer was lost is sent again: the same key tells its batch, or makes one to remove."""
        try:
            await asyncio.wait_for(self.call("create", **given), CLEAN_UP_S)
        except (Refused, Rejected):
            return None
        except (NoAnswer, Unexpected, TimeoutError) as reason:
            return f"the batch of key {given['idempotency_key']}, if there is one: {reason}"
        return None

    async def _remove(self, batch_id: str) -> None:
        try:
            await self.call("cancel", id=batch_id)
        except Refused as refused:
            if refused.status_code == 404:
                return
            # 409: it has ended already.
        await self.wait(batch_id)
        await self.delete(batch_id)


def check_progress(status: Json, rank: int) -> None:
    """Counts add up to the total, and the word is not one that stands before the last one."""
    counts = dict(status["counts"])
    total = counts.pop("total")
    expect(sum(counts.values()) == total, "counts that add up to total", status["counts"])
    word = status["processing_status"]
    expect(word in RANKS, f"processing_status one of {', '.join(RANKS)}", word)
    expect(RANKS[word] >= rank, "a processing_status that never goes back", status)
