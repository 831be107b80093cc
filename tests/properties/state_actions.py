"""What the rules of the state's model are made of: calls of both sides, and the targets to choose from."""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from shared.adapters import keys
from shared.core.lifecycle import Event, ShardState
from shared.core.shards import ShardRecord
from shared.ports.payloads import output_key
from shared.ports.state import Claim, Endpoint, Outcome, Progress, ShardRef
from tests.contract.state import ENDPOINTS, LLAMA, MISTRAL
from tests.properties.frozen_redis import FrozenRedis
from tests.properties.state_pair import Pair, Repeat, happened

JITTER = 0.5
UNKNOWN = f"batch_{'f' * 24}"
IN_FLIGHT = (ShardState.CLAIMED, ShardState.SUBMITTED, ShardState.RUNNING)
BY_ENDPOINT = {endpoint.id: endpoint for endpoint in ENDPOINTS}
LOSSES = (Event.START, Event.REQUEUE, Event.SPLIT)

endpoints = st.sampled_from([MISTRAL, MISTRAL, MISTRAL, LLAMA])
picks = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8])
repeats = st.sampled_from([Repeat.ONCE, Repeat.ONCE, Repeat.RESENT, Repeat.AGAIN])
workers = st.sampled_from(["w1", "w1", "w2", "w2", "w3", "w4", "w5", "w6"])


class StateActions(RuleBasedStateMachine):
    """`records` and `epochs` are those of any time, the latest last."""

    redis: FrozenRedis

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(self.redis, JITTER)
        self.nonces: dict[str, str] = {}
        self.gone: list[str] = []
        self.uploaded = 0
        self.reserved: list[tuple[str, int, str]] = []
        self.heads: dict[str, Sequence[str]] = {}
        self.records: list[tuple[ShardRef, ShardRecord]] = []
        self.epochs: list[tuple[ShardRef, int, Endpoint, int]] = []

    def hand_out(self, endpoint: Endpoint, window: int, repeat: Repeat) -> Sequence[Claim]:
        """With the heads of the last answer, however old."""
        heads = self.heads.get(endpoint.model, ())
        answer = self.pair.call(
            lambda ports: ports.queue.claim(endpoint, window, heads), [Event.CLAIM], repeat
        )
        self.heads[endpoint.model] = answer.heads
        happened(f"claim: {'some' if answer.claims else 'none'}")
        if any(claim.canary for claim in answer.claims):
            happened("claim: canary")
        return answer.claims

    def begin_shard(
        self,
        ref: ShardRef,
        attempt: int,
        job: str,
        worker: str,
        endpoint: Endpoint,
        repeat: Repeat,
        *,
        proven: bool = False,
    ) -> None:
        was = self.shard(ref)
        answer = self.pair.call(
            lambda ports: ports.runs.start(ref, attempt, job, worker, endpoint, proven=proven),
            LOSSES,
            repeat,
        )
        happened(f"start: {answer.verdict}")
        now = self.shard(ref)
        if was and now and was.state is ShardState.RUNNING and now.epoch > was.epoch:
            happened("takeover")
        if was and now and was.state is ShardState.RUNNING and now.state is ShardState.SPLIT:
            happened("takeover: split")
            happened("split")
        if answer.verdict == "errored":
            happened("died too often")
        if now and now.epoch:
            self.epochs.append((ref, now.epoch, endpoint, now.requests))

    def say_alive(self, endpoint: Endpoint, items: Sequence[Progress], repeat: Repeat) -> None:
        answers = self.pair.call(lambda ports: ports.runs.beat(endpoint, items), [Event.BEAT], repeat)
        for verdict in answers:
            happened(f"beat: {verdict}")

    def end_shard(
        self, ref: ShardRef, epoch: int, endpoint: Endpoint, outcome: Outcome, repeat: Repeat
    ) -> None:
        output = output_key(self.nonces[ref.batch], ref.shard, epoch)
        inline = "text" if outcome.gpu_ms % 2 else ""
        answer = self.pair.call(
            lambda ports: ports.runs.settle(ref, epoch, endpoint, output, outcome, inline),
            [Event.SETTLE],
            repeat,
        )
        happened(f"settle: {answer}")
        batch = self.pair.picture.batches.get(ref.batch)
        if batch and batch.ended_ms and batch.splits:
            happened("ended with a split")

    def give_back(
        self, ref: ShardRef, seen: ShardRecord, delay_ms: int, repeat: Repeat, *, blame: bool
    ) -> None:
        answer = self.pair.call(
            lambda ports: ports.repairs.requeue(ref, seen, delay_ms=delay_ms, blame=blame, message="lost"),
            LOSSES,
            repeat,
        )
        happened(f"requeue: {answer}")
        if answer == "split":
            happened("split")
        if answer == "errored":
            happened("died too often")

    def leave(self, batch_id: str, ways: list[str]) -> None:
        """How the shards that still run when their batch is stopped end, as far as they do."""
        running = [(ref, shard) for ref, shard in self.shards(ShardState.RUNNING) if ref.batch == batch_id]
        for way, (ref, shard) in zip(ways, running, strict=False):
            endpoint = BY_ENDPOINT[shard.endpoint]
            self.say_alive(endpoint, [Progress(ref, shard.epoch, 1, 0)], Repeat.ONCE)
            if way == "settle":
                self.end_shard(ref, shard.epoch, endpoint, self.outcome(shard, 2), Repeat.ONCE)
            elif way == "start":
                self.begin_shard(ref, shard.attempt, shard.job, "w1", endpoint, Repeat.ONCE)
            else:
                seen = self.shard(ref) or shard
                self.give_back(ref, seen, 0, Repeat.ONCE, blame=way == "blame")

    def list_all(self, limit: int) -> None:
        token: str | None = None
        while True:
            page = self.pair.call(lambda ports, after=token: ports.batches.listing(limit, after))  # type: ignore[misc]
            token = page[1]
            if token is None:
                return

    def tell_breakers(self) -> None:
        for breaker in self.pair.picture.breakers.values():
            happened(f"breaker: {breaker.cause} {breaker.state}")

    def open_batches(self) -> list[tuple[int, str]]:
        """Those that have not ended, with their expiry."""
        batches = self.pair.picture.batches
        return [(batch.expires_ms, id_) for id_, batch in batches.items() if not batch.ended_ms]

    def batch(self, pick: int) -> str:
        """Any, the latest first, or one that never was."""
        known = self.pair.batch_ids[::-1]
        return UNKNOWN if pick == 8 else known[pick % len(known)]

    def shards(self, *states: ShardState) -> list[tuple[ShardRef, ShardRecord]]:
        found = [
            (ShardRef(batch_id, number), shard)
            for batch_id, shards in self.pair.picture.shards.items()
            for number, shard in shards.items()
            if not states or shard.state in states
        ]
        return sorted(found, key=lambda item: -item[1].suspicions - 3 * item[1].deaths)

    def pick(self, pick: int, *states: ShardState) -> tuple[ShardRef, ShardRecord]:
        found = self.shards(*states)
        self.records.append(found[pick % len(found)])
        return self.records[-1]

    def remember(self, pick: int) -> tuple[ShardRef, ShardRecord]:
        """One picked before, as it was then."""
        if not self.records:
            return self.pick(pick)
        return self.records[-1 - pick % len(self.records)]

    def shard(self, ref: ShardRef) -> ShardRecord | None:
        return self.pair.picture.shards.get(ref.batch, {}).get(ref.shard)

    def epoch(self, pick: int, *, is_lost: bool) -> tuple[ShardRef, int, Endpoint, int]:
        """`is_lost`: one whose shard runs in a later epoch now, where there is any."""
        running = dict(self.shards(ShardState.RUNNING))
        lost = [item for item in self.epochs if item[0] in running and item[1] < running[item[0]].epoch]
        found = lost if is_lost and lost else self.epochs
        return found[-1 - pick % len(found)]

    def outcome(self, shard: ShardRecord, failed: int) -> Outcome:
        """One that adds up; `failed` says how."""
        lost = min(failed, shard.requests)
        kinds = {"errored": 0, "canceled": 0, "expired": 0}
        kinds[list(kinds)[failed % 3]] = lost
        return Outcome(
            shard.requests - lost, **kinds, input_tokens=7, output_tokens=failed, gpu_ms=10 + failed
        )

    def teardown(self) -> None:
        """Nothing of a deleted batch came back."""
        for name in self.redis.names():
            assert all(self.nonces[batch_id] not in name.split(":") for batch_id in self.gone)
            assert all(batch_id not in name or name == keys.deleted(batch_id) for batch_id in self.gone)


def job_of(ref: ShardRef, attempt: int) -> str:
    return f"job-{ref.batch[-2:]}-{ref.shard}-{attempt}"
