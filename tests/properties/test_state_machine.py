"""The state's model: the scripts, the state in memory and the lifecycle table agree, whatever happens in whatever
order, and each call as often as it likes.

A bounded number of examples by default; `--hypothesis-profile=thorough` tries 500 new ones. The statistics
(`--hypothesis-show-statistics`) say how often what happened.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.adapters import redis_shards
from shared.core.lifecycle import Event, ShardState
from shared.core.shards import ShardRecord
from shared.ports.state import (
    Endpoint,
    Lease,
    Progress,
    ShardRef,
    Submitted,
    claimed,
)
from tests.contract.state import MISTRAL, TIMING
from tests.local_cloud.upstash.engine import find_engine, running_engine
from tests.properties.frozen_redis import FrozenRedis
from tests.properties.state_actions import (
    BY_ENDPOINT,
    IN_FLIGHT,
    JITTER,
    endpoints,
    job_of,
    picks,
    repeats,
    workers,
)
from tests.properties.state_batches import HOUR_MS, BatchRules, parts_of_plans
from tests.properties.state_pair import Repeat, done, seen_so_far

# What must have happened in a thorough run, for it to say something.
EVENTS = [
    "beat: lost",
    "breaker: deaths open",
    "breaker: refused open",
    "commit: existing",
    "delete: done",
    "died too often",
    "requeue: queued",
    "settle: False",
    "settle: True",
    "split",
    "start: run",
    "start: stale",
    "stop: canceled stopped",
    "stop: expired stopped",
    "takeover",
    "beat: canceled",
    "beat: expired",
    "breaker: deaths half_open",
    "breaker: refused half_open",
    "commit: mismatch",
    "delete: open",
    "ended with a split",
    "requeue: canceled",
    "requeue: changed",
    "requeue: errored",
    "requeue: expired",
    "requeue: gone",
    "requeue: split",
    "start: busy",
    "start: canceled",
    "start: errored",
    "start: expired",
    "start: gone",
    "start: settled",
    "stop: canceled ended",
    "stop: canceled gone",
    "stop: expired early",
    "takeover: split",
    "commit of an upload: created",
    "commit of an upload: existing",
    "commit of an upload: gone",
    "commit of an upload: mismatch",
    "confirm: closed",
    "confirm: gone",
    "confirm: stored",
    "reserve: closed",
    "reserve: other_body",
    "reserve: other_options",
    "reserve: reserved",
    "reserve: stored",
    "reserve: too_large",
    "reserve: too_many",
]


class StateMachine(BatchRules):
    """Rules pick a target by number among what is there, those that died most first."""

    @initialize(proven=st.sampled_from([True, True, True, False]), parts=parts_of_plans)
    def begin(self, *, proven: bool, parts: list[dict[str, list[int]]]) -> None:
        """`proven`: the endpoint has settled a shard, so that deaths can be a shard's fault."""
        if proven:
            self.create([{"mistral": [1]}], 1.0, None, "", 24 * HOUR_MS, Repeat.ONCE)
            self.feed(MISTRAL, 2, "w1")
            [(ref, shard)] = self.shards(ShardState.RUNNING)
            self.end_shard(ref, shard.epoch, MISTRAL, self.outcome(shard, 0), Repeat.ONCE)
        self.create(parts, 1.0, None, "", 24 * HOUR_MS, Repeat.ONCE)

    # ---- the queue -------------------------------------------------------------------------------------------

    @rule(
        endpoint=endpoints,
        window=st.integers(1, 4),
        capacity=st.sampled_from([None, None, None, 2, 6]),
        repeat=repeats,
    )
    def claim(self, endpoint: Endpoint, window: int, capacity: int | None, repeat: Repeat) -> None:
        if capacity:
            self.pair.call(lambda ports: ports.queue.publish_capacity(endpoint, capacity), repeat=repeat)
        self.hand_out(endpoint, window, repeat)

    @precondition(lambda self: self.shards(*IN_FLIGHT))
    @rule(pick=picks, late=st.integers(0, 1), healthy=st.booleans(), repeat=repeats)
    def record(self, pick: int, late: int, repeat: Repeat, *, healthy: bool) -> None:
        ref, shard = self.pick(pick, *IN_FLIGHT)
        item = Submitted(ref, shard.attempt - late, job_of(ref, shard.attempt - late))
        endpoint = BY_ENDPOINT[shard.endpoint]
        self.pair.call(
            lambda ports: ports.queue.record(endpoint, [item], healthy=healthy), [Event.RECORD], repeat
        )

    @rule(endpoint=endpoints, window=st.integers(1, 4), worker=workers)
    def feed(self, endpoint: Endpoint, window: int, worker: str) -> None:
        """All that the endpoint takes, submitted and started."""
        for _ in range(4):
            claims = self.hand_out(endpoint, window, Repeat.ONCE)
            items = [
                Submitted(claim.ref, claim.attempt, job_of(claim.ref, claim.attempt)) for claim in claims
            ]
            if items:
                self.pair.call(
                    lambda ports, items=items: ports.queue.record(endpoint, items),  # type: ignore[misc]
                    [Event.RECORD],
                )
            for claim in claims:
                self.begin_shard(
                    claim.ref, claim.attempt, job_of(claim.ref, claim.attempt), worker, endpoint, Repeat.ONCE
                )
            if not claims and not self.heads[endpoint.model]:
                return

    @rule(
        endpoint=endpoints,
        retries_after_s=st.lists(st.sampled_from([None, 0, 7.5, 90, 10_000]), min_size=1, max_size=3),
        repeat=repeats,
    )
    def refuse(self, endpoint: Endpoint, retries_after_s: list[float | None], repeat: Repeat) -> None:
        """RunPod takes no job, whenever it is asked. What was given back is once more, too late."""
        refused: list[tuple[ShardRef, ShardRecord]] = []
        for retry_after_s in retries_after_s:
            claims = [*self.hand_out(endpoint, 2, Repeat.ONCE), *self.hand_out(endpoint, 2, repeat)]
            for ref, seen in refused:
                self.give_back(ref, seen, 0, repeat, blame=False)
            refused = [(c.ref, claimed(c.ref, endpoint, c.attempt, c.requests)) for c in claims]
            for ref, seen in refused:
                self.give_back(ref, seen, 0, repeat, blame=False)
                self.pair.call(lambda ports, after=retry_after_s: ports.queue.rest(endpoint, after))  # type: ignore[misc]
            self.tell_breakers()
            self.pair.advance(self.pair.picture.breakers[endpoint.id].resting_ms)

    # ---- runs ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.shards() or self.records)
    @rule(
        pick=picks,
        is_fresh=st.sampled_from([True, True, False]),
        late=st.sampled_from([0, 0, 0, 1]),
        other_job=st.booleans(),
        proven=st.sampled_from([False, False, False, True]),
        worker=workers,
        repeat=repeats,
    )
    def start(
        self,
        pick: int,
        late: int,
        worker: str,
        repeat: Repeat,
        *,
        is_fresh: bool,
        other_job: bool,
        proven: bool,
    ) -> None:
        """The job of this attempt or an older one, or another job of it, whatever the state."""
        if is_fresh and self.shards(*IN_FLIGHT):
            ref, shard = self.pick(pick, *IN_FLIGHT)
        else:
            ref, shard = self.remember(pick)
        attempt = shard.attempt - late
        job = f"other-{worker}" if other_job else job_of(ref, attempt)
        endpoint = BY_ENDPOINT[shard.endpoint or MISTRAL.id]
        self.begin_shard(ref, attempt, job, worker, endpoint, repeat, proven=proven)

    @precondition(lambda self: self.epochs)
    @rule(
        picked=st.lists(picks, min_size=1, max_size=3, unique=True),
        succeeded=st.integers(0, 2),
        errored=st.integers(0, 2),
        is_lost=st.booleans(),
        repeat=repeats,
    )
    def beat(self, picked: list[int], succeeded: int, errored: int, repeat: Repeat, *, is_lost: bool) -> None:
        """Of epochs that may be lost."""
        items: list[Progress] = []
        endpoint = self.epoch(picked[0], is_lost=is_lost)[2]
        for pick in picked:
            ref, epoch, where, requests = self.epoch(pick, is_lost=is_lost)
            if where == endpoint and all(item.ref != ref for item in items):
                done = min(succeeded, requests)
                items.append(Progress(ref, epoch, done, min(errored, requests - done)))
        self.say_alive(endpoint, items, repeat)

    @precondition(lambda self: self.epochs)
    @rule(pick=picks, failed=st.integers(0, 5), is_lost=st.booleans(), repeat=repeats)
    def settle(self, pick: int, failed: int, repeat: Repeat, *, is_lost: bool) -> None:
        """By the owner of an epoch that may be lost."""
        ref, epoch, endpoint, _ = self.epoch(pick, is_lost=is_lost)
        shard = self.shard(ref)
        if shard:
            self.end_shard(ref, epoch, endpoint, self.outcome(shard, failed), repeat)

    @precondition(lambda self: self.shards(ShardState.RUNNING))
    @rule(pick=picks, failed=st.integers(0, 5), repeat=repeats)
    def finish(self, pick: int, failed: int, repeat: Repeat) -> None:
        ref, shard = self.pick(pick, ShardState.RUNNING)
        self.end_shard(ref, shard.epoch, BY_ENDPOINT[shard.endpoint], self.outcome(shard, failed), repeat)

    @rule(endpoint=endpoints, window=st.integers(1, 4), failed=st.integers(0, 5), worker=workers)
    def serve(self, endpoint: Endpoint, window: int, failed: int, worker: str) -> None:
        """All that the endpoint takes runs to its end."""
        self.feed(endpoint, window, worker)
        for ref, shard in self.shards(ShardState.RUNNING):
            if shard.endpoint == endpoint.id:
                self.say_alive(
                    endpoint, [Progress(ref, shard.epoch, failed % 2, 1 - failed % 2)], Repeat.ONCE
                )
                self.end_shard(ref, shard.epoch, endpoint, self.outcome(shard, failed), Repeat.ONCE)

    # ---- losses ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.records)
    @rule(
        pick=picks,
        is_fresh=st.booleans(),
        delay_ms=st.sampled_from([0, 0, 4000, 20_000]),
        blame=st.booleans(),
        repeat=repeats,
    )
    def requeue(self, pick: int, delay_ms: int, repeat: Repeat, *, is_fresh: bool, blame: bool) -> None:
        """By somebody who looked just now, or long ago."""
        if is_fresh and self.shards(*IN_FLIGHT):
            ref, seen = self.pick(pick, *IN_FLIGHT)
        else:
            ref, seen = self.remember(pick)
        self.give_back(ref, seen, delay_ms, repeat, blame=blame)

    @rule(
        names=st.lists(workers, min_size=2, max_size=8),
        endpoint=endpoints,
        window=st.integers(1, 4),
        delay_ms=st.sampled_from([0, 0, 4000]),
        repeat=repeats,
    )
    def crash(self, names: list[str], endpoint: Endpoint, window: int, delay_ms: int, repeat: Repeat) -> None:
        """Workers die one after the other, each of the shard that died most. Whoever looked before a last sign of
        life comes too late."""
        for name in names:
            self.feed(endpoint, window, name)
            if self.shards(ShardState.RUNNING):
                ref, shard = self.pick(0, ShardState.RUNNING)
                self.pair.advance(1000)
                self.say_alive(BY_ENDPOINT[shard.endpoint], [Progress(ref, shard.epoch, 1, 0)], repeat)
                self.give_back(ref, shard, 0, repeat, blame=True)
                self.give_back(ref, self.shard(ref) or shard, delay_ms, repeat, blame=True)
            self.tell_breakers()
            self.pair.advance(delay_ms // 2)

    @rule(
        names=st.lists(workers, min_size=2, max_size=8),
        endpoint=endpoints,
        window=st.integers(1, 4),
        silence_ms=st.sampled_from([0, 0, TIMING.stale_ms - 1, TIMING.stale_ms]),
        repeat=repeats,
    )
    def redeliver(
        self, names: list[str], endpoint: Endpoint, window: int, silence_ms: int, repeat: Repeat
    ) -> None:
        """The same; RunPod notices, and delivers the job to the next worker, or another job of it. The last worker was
        only frozen."""
        for name in names:
            self.feed(endpoint, window, name)
            if self.shards(ShardState.RUNNING):
                ref, shard = self.pick(0, ShardState.RUNNING)
                at, job = BY_ENDPOINT[shard.endpoint], f"other-{name}" if silence_ms else shard.job
                self.say_alive(at, [Progress(ref, shard.epoch, 0, 1)], Repeat.ONCE)
                self.pair.advance(silence_ms)
                self.begin_shard(ref, shard.attempt, job, name, at, repeat)
                self.say_alive(at, [Progress(ref, shard.epoch, 1, 0)], repeat)

    @rule(pick=picks, endpoint=endpoints, after_ms=st.sampled_from([0, 5000]), repeat=repeats)
    def look(self, pick: int, endpoint: Endpoint, after_ms: int, repeat: Repeat) -> None:
        """At a lease that may stand for nothing."""
        known = self.shards()
        ref = self.pick(pick)[0] if known else ShardRef(self.batch(pick), 0)
        lease = Lease(endpoint.id, ref)
        self.pair.call(lambda ports: ports.repairs.inspect(lease), repeat=repeat)
        if after_ms:
            self.pair.call(lambda ports: ports.repairs.renew(lease, after_ms), repeat=repeat)
        else:
            self.pair.call(lambda ports: ports.repairs.drop(lease), repeat=repeat)


@pytest.fixture
def frozen_redis() -> Iterator[FrozenRedis]:
    with running_engine(find_engine(os.environ)) as engine:
        redis = FrozenRedis(engine.socket_path)
        yield redis
        done(redis.close())


@pytest.fixture
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    class Steady:
        @staticmethod
        def random() -> float:
            return JITTER

    monkeypatch.setattr(redis_shards, "random", Steady)


BOUNDED = settings(max_examples=60, stateful_step_count=50, derandomize=True)


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("_steady")
def test_the_scripts_do_what_the_state_in_memory_does(frozen_redis: FrozenRedis) -> None:
    StateMachine.redis = frozen_redis
    seen_so_far.clear()
    is_thorough = settings.get_current_profile_name() == "thorough"
    wanted = settings(
        settings(stateful_step_count=BOUNDED.stateful_step_count) if is_thorough else BOUNDED,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    run_state_machine_as_test(StateMachine, settings=wanted)
    # A short run may miss one of them.
    if is_thorough:
        assert [what for what in EVENTS if not seen_so_far[what]] == []
