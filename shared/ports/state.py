"""The state of all batches, as four small contracts: batches, the queue of shards, running shards, and repair.

Every method is one atomic, idempotent step on the store (a resend after a lost reply answers the same, or what leads
its caller to the same), raises StateUnavailable where the store did not answer, and changes nothing for a batch that is
gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from shared.core.lifecycle import ShardState
from shared.core.sharding import PartPlan
from shared.core.shards import BatchRecord, ShardRecord


@dataclass(frozen=True)
class ShardRef:
    """One shard of one batch."""

    batch: str
    shard: int


@dataclass(frozen=True)
class Endpoint:
    """A RunPod endpoint that serves a model. `id` is the last part of `url`."""

    id: str
    url: str
    model: str


@dataclass(frozen=True)
class NewBatch:
    """A batch to commit; its payloads are stored under `nonce` already. One that retries another (`retry_of`) without a
    key of its own is the only such retry of it; so is one without any key the only batch of the RunPod job `job`. One
    that was made of an `upload` is the only one of it."""

    id: str
    stage: str
    priority: str
    weight: float
    nonce: str
    parts: Sequence[PartPlan]
    expires_in_ms: int
    retain_ms: int
    idempotency_key: str | None = None
    body_hash: str | None = None
    retry_of: str | None = None
    job: str | None = None
    callback_url: str | None = field(default=None, repr=False)
    upload: str | None = None

    @property
    def total(self) -> int:
        return sum(part.requests for part in self.parts)

    @property
    def requests_by_model(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for part in self.parts:
            for model in part.models:
                counts[model.model] = counts.get(model.model, 0) + model.requests
        return counts

    @property
    def next_shard(self) -> int:
        """The first number behind those of the plan, which a split begins with."""
        return max(model.numbers.stop for part in self.parts for model in part.models)


@dataclass(frozen=True)
class Committed:
    """`existing`: the key already made batch `id` from the same body; `mismatch`: from another; `gone`: its upload
    ended meanwhile. `head` is a created batch's member in its queues, for the first claim."""

    verdict: Literal["created", "existing", "mismatch", "gone"]
    id: str
    head: str = ""


@dataclass(frozen=True)
class Lease:
    endpoint: str
    ref: ShardRef


@dataclass(frozen=True)
class Work:
    """What a sweep found to do. `hints` are raw webhook bodies; `models` have work to hand out and an endpoint that
    takes it; `endpoints` are all that were ever used. `callbacks` are ended batches whose callbacks are due:
    the caller's to deliver, for as long as nobody else is given them."""

    hints: Sequence[str]
    leases: Sequence[Lease]
    expired: Sequence[str]
    models: Sequence[str]
    endpoints: Sequence[Endpoint]
    callbacks: Sequence[str] = ()


@dataclass(frozen=True)
class Swept:
    """`batch` is None where it is unknown or deleted; `work` is None where another sweep was just made."""

    batch: BatchRecord | None
    work: Work | None


@dataclass(frozen=True)
class Stopped:
    """`jobs` are (endpoint id, job id) that may still be queued at RunPod."""

    verdict: Literal["stopped", "ended", "gone", "early"]
    jobs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Deletion:
    verdict: Literal["marked", "done", "open", "gone"]
    nonce: str = ""


class Batches(Protocol):
    async def find_key(self, idempotency_key: str, body_hash: str) -> Committed | None:
        """The batch that the key made already, None where it is free."""

    async def find_retry(self, batch_id: str) -> str | None:
        """The batch that retries this one without a key of its own, None where there is none yet."""

    async def commit(self, batch: NewBatch) -> Committed: ...

    async def sweep(self, batch_id: str | None, *, force: bool = False) -> Swept:
        """One round trip: a batch's record (where an id is given) and, at most once a second over all processes or
        where `force` is set, the work that repair and feeding should do."""

    async def stop(self, batch_id: str, reason: Literal["canceled", "expired"]) -> Stopped: ...

    async def delete(self, batch_id: str, step: Literal["mark", "finish"]) -> Deletion: ...

    async def listing(self, limit: int, token: str | None) -> tuple[list[BatchRecord], str | None]:
        """Batches, newest first, and a token for the next page in the same direction. Raises InvalidRequest for a bad
        token."""

    async def place(self, batch_id: str, *, newer: bool) -> str | None:
        """The token of the page just older or just newer than a batch, also one that was deleted lately; None for any
        other."""

    async def part_totals(self, batch_id: str) -> list[int]:
        """The requests of each part, also of a batch that is marked as deleted. Empty where it is gone."""

    async def part(self, batch_id: str, part: int) -> PartPlan | None:
        """The plan of one part, None where the batch is gone."""

    async def shards(self, batch_id: str, numbers: Sequence[int]) -> dict[int, ShardRecord]:
        """The records of those shards that were handed out."""


@dataclass(frozen=True)
class UploadedPart:
    """`hash` is of its requests; `stored`: its payloads are there."""

    hash: str
    plan: PartPlan
    stored: bool


@dataclass(frozen=True)
class Upload:
    """The parts of a batch to come. `options` are as its parts gave them; `made` is the batch that was made of it, and
    the hash of that create."""

    nonce: str
    options: str
    parts: Mapping[int, UploadedPart]
    made: tuple[str, str] | None = None


@dataclass(frozen=True)
class PartDraft:
    """A part to reserve, validated and cut, of `size_bytes` as stored. `nonce` is for the upload's first
    part."""

    number: int
    hash: str
    plan: PartPlan
    size_bytes: int
    options: str
    nonce: str


ReserveVerdict = Literal[
    "reserved", "stored", "other_body", "other_options", "too_many", "too_large", "closed", "gone"
]


@dataclass(frozen=True)
class Reserved:
    """`nonce` is the upload's; `batch` the one that was made of it, if any."""

    verdict: ReserveVerdict
    nonce: str = ""
    batch: str = ""


class Uploads(Protocol):
    async def find(self, key: str) -> Upload | None: ...

    async def reserve(self, key: str, part: PartDraft) -> Reserved:
        """Fixes what the part is, before its payloads are stored under the upload's nonce."""

    async def confirm(self, key: str, part: int, nonce: str) -> Reserved:
        """The reserved part's payloads are stored. "gone": the upload ended meanwhile; "closed": a batch was made of it
        without the part."""


@dataclass(frozen=True)
class Claim:
    """A shard handed out for submission. `left_ms` until its batch expires. `alone`: nothing else may run in the
    engine that runs it. `canary`: that engine must have answered a prompt that is known to be good."""

    ref: ShardRef
    attempt: int
    requests: int
    left_ms: int
    alone: bool = False
    canary: bool = False


@dataclass(frozen=True)
class Claimed:
    """`heads` are the next members of the queue (opaque; hand them to the next claim); `room` is what the endpoint's
    window still takes."""

    claims: Sequence[Claim]
    heads: Sequence[str]
    room: int


@dataclass(frozen=True)
class Submitted:
    ref: ShardRef
    attempt: int
    job: str


class Queue(Protocol):
    async def claim(self, endpoint: Endpoint, window: int, heads: Sequence[str]) -> Claimed:
        """Up to 8 shards for `endpoint`, fair over batches. Only batches in `heads` are looked at: call again with
        the heads of the answer until it gives neither."""

    async def record(
        self, endpoint: Endpoint, submitted: Sequence[Submitted], *, healthy: bool = True
    ) -> None:
        """`healthy`: the endpoint refused none beside them, so that its rest is over."""

    async def rest(self, endpoint: Endpoint, retry_after_s: float | None) -> float:
        """Rest an endpoint that refused a job; returns for how many seconds."""

    async def publish_capacity(self, endpoint: Endpoint, concurrency: int) -> None:
        """A worker says how many jobs it holds at a time: the window of its endpoint follows."""


@dataclass(frozen=True)
class Started:
    """All but the verdict are set where it is "run". `head` is the batch's member in the queue, for the next claim. The
    shard's requests begin at `offset` of the input of shard `root`: another one's where a shard was split. Its batch is
    kept for `keep_ms` from now."""

    verdict: Literal["run", "gone", "settled", "stale", "busy", "canceled", "expired", "errored"]
    epoch: int = 0
    nonce: str = ""
    requests: int = 0
    head: str = ""
    root: int = 0
    offset: int = 0
    keep_ms: int = 0


@dataclass(frozen=True)
class Progress:
    ref: ShardRef
    epoch: int
    succeeded: int
    errored: int


BeatVerdict = Literal["ok", "lost", "canceled", "expired"]


@dataclass(frozen=True)
class Outcome:
    """A finished shard: counts by outcome (they add up to its requests), usage and engine time. `refused`: of the
    errored those that no engine saw."""

    succeeded: int
    errored: int
    canceled: int
    expired: int
    input_tokens: int
    output_tokens: int
    gpu_ms: int
    refused: int = 0


class Runs(Protocol):
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
        """`proven`: the worker's engine has just answered a canary."""

    async def beat(self, endpoint: Endpoint, items: Sequence[Progress]) -> list[BeatVerdict]: ...

    async def settle(
        self, ref: ShardRef, epoch: int, endpoint: Endpoint, output_key: str, outcome: Outcome, inline: str
    ) -> bool:
        """True where this epoch's output stands; False where another settled first or the batch is gone. `inline` is
        the stored form of a small output, empty where it was written before."""


@dataclass(frozen=True)
class Inspected:
    """`now_ms` is Redis time; `shard` is None where the lease stands for nothing any more."""

    shard: ShardRecord | None
    nonce: str
    now_ms: int


RequeueVerdict = Literal["queued", "split", "errored", "canceled", "expired", "changed", "gone"]


class Repairs(Protocol):
    async def inspect(self, lease: Lease) -> Inspected: ...

    async def renew(self, lease: Lease, after_ms: int) -> None: ...

    async def drop(self, lease: Lease) -> None: ...

    async def requeue(
        self, ref: ShardRef, seen: ShardRecord, *, delay_ms: int, blame: bool, message: str
    ) -> RequeueVerdict:
        """Back to the retry list, if the record still is as `seen`. `blame`: its worker died, or its job ended
        unstarted. A shard that died alone goes back as two halves; a single request settles as errored the last time.
        """


def claimed(ref: ShardRef, endpoint: Endpoint, attempt: int, requests: int) -> ShardRecord:
    """What a freshly claimed shard looks like to its claimer: the `seen` of a refused submission."""
    return ShardRecord(
        number=ref.shard,
        model=endpoint.model,
        state=ShardState.CLAIMED,
        attempt=attempt,
        epoch=-1,
        requests=requests,
        endpoint=endpoint.id,
    )
