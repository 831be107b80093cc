"""Small in-memory stand-ins for the ports, for tests of what stands on them."""

import asyncio
from base64 import b64encode
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.core.callbacks import Attempt
from shared.core.content import text_of
from shared.core.repair import JobState
from shared.core.shards import ShardRecord
from shared.errors import EndpointUnavailable, ServiceError, StateUnavailable, StorageUnavailable
from shared.ports.engine import Call, Completion, Prompt, Reply
from shared.ports.jobs import JobAnswer, JobPolicy
from shared.ports.state import (
    BeatVerdict,
    Claimed,
    Endpoint,
    Inspected,
    Lease,
    Outcome,
    Progress,
    RequeueVerdict,
    ShardRef,
    Started,
    Submitted,
)


class FakeReceiver:
    """A callbacks' sender that keeps what it is sent: (url, headers, body); `arrived` says that there is any. `answers`
    are what it says, then success; `held` keeps it from answering until it is set."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Mapping[str, str], str]] = []
        self.answers: deque[Attempt] = deque()
        self.arrived = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()

    async def send(self, url: str, headers: Mapping[str, str], body: str) -> Attempt:
        self.received.append((url, headers, body))
        self.arrived.set()
        await self.held.wait()
        return self.answers.popleft() if self.answers else Attempt()


class FakePayloads:
    """Payloads in a dict. `down` makes every call fail."""

    def __init__(self, inline_bytes: int = 1000) -> None:
        self.items: dict[str, bytes] = {}
        self.down = False
        self._inline_bytes = inline_bytes

    async def put(self, items: Mapping[str, bytes], ttl_ms: int) -> None:
        await self.check()
        self.items.update(items)

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        await self.check()
        return [self.items.get(key) for key in keys]

    async def delete(self, keys: Sequence[str]) -> None:
        await self.check()
        for key in keys:
            self.items.pop(key, None)

    def inline(self, data: bytes) -> str | None:
        text = b64encode(data).decode("ascii")
        return text if len(text) <= self._inline_bytes else None

    async def check(self) -> None:
        if self.down:
            raise StorageUnavailable("the fake storage is down")


@dataclass(frozen=True)
class SubmittedJob:
    endpoint: Endpoint
    job_input: Mapping[str, Any]
    webhook: str | None
    policy: JobPolicy


@dataclass
class FakeJobs:
    """RunPod's queue as a list. `refusals` are used up by the next submissions; `states` says what /status says;
    a call that waits is answered by the next of `answers`."""

    submitted: list[SubmittedJob] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refusals: deque[EndpointUnavailable] = field(default_factory=deque)
    states: dict[str, JobState] = field(default_factory=dict)
    called: list[tuple[Endpoint, Mapping[str, Any]]] = field(default_factory=list)
    answers: deque[JobAnswer | ServiceError] = field(default_factory=deque)

    async def run(
        self, endpoint: Endpoint, job_input: Mapping[str, Any], webhook: str | None, policy: JobPolicy
    ) -> str:
        if self.refusals:
            raise self.refusals.popleft()
        self.submitted.append(SubmittedJob(endpoint, job_input, webhook, policy))
        return f"fake-{len(self.submitted)}"

    async def status(self, endpoint: Endpoint, job: str) -> JobState:
        self.asked.append((endpoint.id, job))
        return self.states.get(job, JobState.UNKNOWN)

    async def cancel(self, endpoint: Endpoint, job: str) -> None:
        self.canceled.append(job)

    async def health(self, endpoint: Endpoint) -> Mapping[str, Any]:
        return {"jobs": {"inQueue": len(self.submitted)}, "workers": {"idle": 1}}

    async def ask(self, endpoint: Endpoint, job_input: Mapping[str, Any], wait_s: float) -> JobAnswer:
        self.called.append((endpoint, job_input))
        answer = self.answers.popleft()
        if isinstance(answer, ServiceError):
            raise answer
        return answer


@dataclass(frozen=True, eq=False)
class ScriptedReply:
    """The answer to a call, part by part: bytes are sent, an event is waited for, an exception is raised."""

    parts: Iterable[bytes | asyncio.Event | BaseException]
    status_code: int = 200
    streaming: bool = False


class ScriptedEngine:
    """Answers each prompt by its last message: an exception of `faults` under that text (used up one by one), else
    the text in capitals. A text in `held` waits until `release` is set. A call gets the next of `replies`, which is
    in `closed` once its chunks are."""

    slots = 4
    request_s = 0.01
    alive = True

    def __init__(self) -> None:
        self.faults: dict[str, list[BaseException]] = {}
        self.held: set[str] = set()
        self.release = asyncio.Event()
        self.prompts: list[str] = []
        self.urgent: list[bool] = []
        self.aborted: list[str] = []
        self.calls: list[Call] = []
        self.replies: deque[ScriptedReply] = deque()
        self.closed: list[ScriptedReply] = []

    def start(self) -> None:
        """There is nothing to load."""

    async def generate(self, prompt: Prompt) -> Completion:
        text = text_of(prompt.params["messages"][-1]["content"])
        self.prompts.append(text)
        self.urgent.append(prompt.urgent)
        if self.faults.get(text):
            raise self.faults[text].pop(0)
        if text in self.held:
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.aborted.append(text)
                raise
        return Completion(text.upper(), input_tokens=len(text), output_tokens=2, stop_reason="end_turn")

    async def call(self, call: Call) -> Reply:
        self.calls.append(call)
        scripted = self.replies.popleft()
        return Reply(scripted.status_code, scripted.streaming, self._chunks(scripted))

    async def _chunks(self, scripted: ScriptedReply) -> AsyncGenerator[bytes, None]:
        try:
            for part in scripted.parts:
                if isinstance(part, asyncio.Event):
                    await part.wait()
                elif isinstance(part, BaseException):
                    raise part
                else:
                    yield part
        finally:
            self.closed.append(scripted)

    def close(self) -> None:
        """There is nothing to unload."""


@dataclass(frozen=True)
class Settled:
    ref: ShardRef
    epoch: int
    output_key: str
    outcome: Outcome
    inline: str


@dataclass
class FakeRuns:
    """Every start gets `started`, every beat `verdict`; settles are remembered and `stands` is their answer."""

    started: Started = field(default_factory=lambda: Started("run", 1, "nonce", 1, "head"))
    verdict: BeatVerdict = "ok"
    stands: bool = True
    down: bool = False
    starts: int = 0
    proven: list[bool] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    beats: list[list[Progress]] = field(default_factory=list)

    async def start(
        self,
        ref: ShardRef,
        attempt: int,
        job: str,
        worker: str,
        endpoint: Endpoint,
        *,
        proven: bool = False,
    ) -> Started:
        self.starts += 1
        self.proven.append(proven)
        return self.started

    async def beat(self, endpoint: Endpoint, items: Sequence[Progress]) -> list[BeatVerdict]:
        self.beats.append(list(items))
        if self.down:
            raise StateUnavailable("the fake state is down")
        return [self.verdict] * len(items)

    async def settle(
        self, ref: ShardRef, epoch: int, endpoint: Endpoint, output_key: str, outcome: Outcome, inline: str
    ) -> bool:
        self.settled.append(Settled(ref, epoch, output_key, outcome, inline))
        return self.stands


@dataclass(frozen=True)
class Requeued:
    ref: ShardRef
    seen: ShardRecord
    delay_ms: int
    blame: bool
    message: str


@dataclass
class FakeRepairs:
    """`found` is what a look at any lease finds."""

    found: Inspected = field(default_factory=lambda: Inspected(None, "", 0))
    requeued: list[Requeued] = field(default_factory=list)
    renewed: list[tuple[Lease, int]] = field(default_factory=list)
    dropped: list[Lease] = field(default_factory=list)

    async def inspect(self, lease: Lease) -> Inspected:
        return self.found

    async def renew(self, lease: Lease, after_ms: int) -> None:
        self.renewed.append((lease, after_ms))

    async def drop(self, lease: Lease) -> None:
        self.dropped.append(lease)

    async def requeue(
        self, ref: ShardRef, seen: ShardRecord, *, delay_ms: int, blame: bool, message: str
    ) -> RequeueVerdict:
        self.requeued.append(Requeued(ref, seen, delay_ms, blame, message))
        return "queued"


@dataclass
class FakeQueue:
    """Claims come from `answers`, one per call; none when they are used up."""

    answers: deque[Claimed] = field(default_factory=deque)
    asked: list[list[str]] = field(default_factory=list)
    recorded: list[Submitted] = field(default_factory=list)
    healthy: list[bool] = field(default_factory=list)
    rests: list[float | None] = field(default_factory=list)
    down: bool = False

    async def claim(self, endpoint: Endpoint, window: int, heads: Sequence[str]) -> Claimed:
        if self.down:
            raise StateUnavailable("the fake state is down")
        self.asked.append(list(heads))
        return self.answers.popleft() if self.answers else Claimed([], [], 0)

    async def record(
        self, endpoint: Endpoint, submitted: Sequence[Submitted], *, healthy: bool = True
    ) -> None:
        self.recorded += submitted
        self.healthy.append(healthy)

    async def rest(self, endpoint: Endpoint, retry_after_s: float | None) -> float:
        self.rests.append(retry_after_s)
        return 1.0

    async def publish_capacity(self, endpoint: Endpoint, concurrency: int) -> None:
        """Nothing here asks for it."""
