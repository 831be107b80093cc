"""The tick's decisions carried out: hints are only hints, outputs are adopted, lost shards go back."""

import json
from typing import Any

import pytest

from handlers.catalog import CARDS
from shared.core.lifecycle import ShardState
from shared.core.repair import JobState, Patience
from shared.core.shards import ShardRecord
from shared.core.views import succeeded_line
from shared.flow.caretaker import Caretaker
from shared.flow.feeder import Feeder
from shared.flow.outputs import ShardOutput
from shared.ports.payloads import output_key
from shared.ports.state import Endpoint, Inspected, Lease, ShardRef
from tests.fakes import FakeJobs, FakePayloads, FakeQueue, FakeRepairs, FakeRuns

ENDPOINT = Endpoint("ep", "http://runpod.invalid/v2/ep", "mistral")
CARD = {card.name: card for card in CARDS}["mistral"]
BATCH = f"batch_{0:024x}"
REF = ShardRef(BATCH, 3)
LEASE = Lease("ep", REF)
NOW_MS = 10**12
STALE_MS = 31_000


class Bench:
    def __init__(self) -> None:
        self.repairs, self.runs, self.jobs = FakeRepairs(), FakeRuns(), FakeJobs()
        self.payloads, self.queue = FakePayloads(), FakeQueue()
        cards, endpoints = {"mistral": CARD}, {"mistral": ENDPOINT}
        self.feeder = Feeder(self.queue, self.repairs, self.jobs, endpoints, cards, lambda batch: None)
        unused: Any = None
        self.caretaker = Caretaker(
            unused,
            self.repairs,
            self.runs,
            self.jobs,
            self.payloads,
            self.feeder,
            cards,
            endpoints,
            Patience(),
            unused,
        )

    def finds(
        self,
        state: ShardState,
        *,
        age_ms: int = 0,
        beat_age_ms: int = 0,
        epoch: int = 1,
        deaths: int = 0,
        losses: int = 0,
    ) -> None:
        shard = ShardRecord(
            3,
            "mistral",
            state,
            1,
            epoch,
            2,
            "ep",
            "job",
            NOW_MS - beat_age_ms,
            NOW_MS - age_ms,
            deaths,
            losses=losses,
        )
        self.repairs.found = Inspected(shard, "nonce", NOW_MS)

    def stored(self, lines: int) -> None:
        line = succeeded_line("a", "mistral", "text", 3, 4)
        output = ShardOutput([line] * lines, gpu_ms=5)
        self.payloads.items[output_key("nonce", 3, 1)] = output.encode()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def hint(output: Any = None, **changes: Any) -> str:
    job_input = {"batch": BATCH, "shard": 3, "attempt": 1, "endpoint": "ep", **changes}
    return json.dumps({"id": "job", "status": "COMPLETED", "input": job_input, "output": output})


class TestHints:
    @pytest.mark.parametrize(
        "output", [None, {}, [], [{"state": "odd"}], "text", [1], [None], {"error": "x"}]
    )
    def test_a_job_that_ended_oddly_points_at_its_lease(self, bench: Bench, output: Any) -> None:
        assert bench.caretaker.read_hint(hint(output)) == LEASE

    @pytest.mark.parametrize("state", ["settled", "refused"])
    def test_a_job_that_ended_well_needs_no_look(self, bench: Bench, state: str) -> None:
        assert bench.caretaker.read_hint(hint([{"state": state}])) is None

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "x",
            "[]",
            "{}",
            "null",
            "3",
            '{"input": []}',
            '{"input": {"batch": "b"}}',
            hint(shard="x"),
            hint(shard=None),
            hint(endpoint="somebody-elses"),
            "[" * 100_000,
            '{"input": {"shard": ' + "9" * 5000 + "}}",
        ],
        ids=lambda body: body[:20],
    )
    def test_what_is_not_ours_is_nothing(self, bench: Bench, body: str) -> None:
        assert bench.caretaker.read_hint(body) is None


class TestCheck:
    async def test_a_lease_of_nothing_needs_nothing(self, bench: Bench) -> None:
        await bench.caretaker.check(LEASE)
        assert (bench.jobs.asked, bench.repairs.requeued, bench.repairs.dropped) == ([], [], [])

    @pytest.mark.parametrize("state", [ShardState.SETTLED, ShardState.SPLIT])
    async def test_a_shard_that_is_over_loses_its_lease(self, bench: Bench, state: ShardState) -> None:
        bench.finds(state)
        await bench.caretaker.check(LEASE)
        assert bench.repairs.dropped == [LEASE]

    async def test_a_fresh_beat_is_renewed_without_asking(self, bench: Bench) -> None:
        bench.finds(ShardState.RUNNING, beat_age_ms=10_000)
        bench.jobs.states["job"] = JobState.FAILED
        await bench.caretaker.check(LEASE)
        assert (bench.jobs.asked, bench.repairs.renewed) == ([], [(LEASE, 20_000)])

    async def test_a_queued_job_is_waited_for(self, bench: Bench) -> None:
        bench.finds(ShardState.SUBMITTED, age_ms=10**9)
        bench.jobs.states["job"] = JobState.QUEUED
        await bench.caretaker.check(LEASE)
        assert bench.jobs.asked == [("ep", "job")]
        assert bench.repairs.renewed == [(LEASE, 15_000)]

    async def test_a_lost_worker_is_blamed_and_its_shard_comes_back_later(self, bench: Bench) -> None:
        bench.finds(ShardState.RUNNING, beat_age_ms=STALE_MS, deaths=1, losses=2)
        bench.jobs.states["job"] = JobState.FAILED
        await bench.caretaker.check(LEASE)
        [requeued] = bench.repairs.requeued
        assert requeued.blame
        assert 2000 <= requeued.delay_ms <= 4000
        assert requeued.message.startswith("Its worker died each time it ran this request alone; the last")
        assert bench.queue.asked == []

    async def test_an_unconfirmed_claim_comes_back_at_once_and_is_fed(self, bench: Bench) -> None:
        bench.finds(ShardState.CLAIMED, age_ms=30_000, epoch=0)
        await bench.caretaker.check(LEASE)
        [requeued] = bench.repairs.requeued
        assert (requeued.blame, requeued.delay_ms) == (False, 0)
        await bench.feeder.kick("mistral")
        assert bench.queue.asked

    async def test_a_job_past_its_timeout_is_cancelled_first(self, bench: Bench) -> None:
        long_ms = 10**9
        bench.finds(ShardState.RUNNING, age_ms=long_ms, beat_age_ms=long_ms)
        bench.jobs.states["job"] = JobState.RUNNING
        await bench.caretaker.check(LEASE)
        assert bench.jobs.canceled == ["job"]
        assert len(bench.repairs.requeued) == 1

    async def test_an_output_found_whole_is_adopted_instead_of_run_again(self, bench: Bench) -> None:
        bench.finds(ShardState.RUNNING, beat_age_ms=STALE_MS)
        bench.jobs.states["job"] = JobState.FAILED
        bench.stored(lines=2)
        await bench.caretaker.check(LEASE)
        [settled] = bench.runs.settled
        assert (settled.epoch, settled.outcome.succeeded, settled.outcome.output_tokens) == (1, 2, 8)
        assert bench.repairs.requeued == []

    async def test_an_output_of_the_wrong_length_is_not_adopted(self, bench: Bench) -> None:
        bench.finds(ShardState.RUNNING, beat_age_ms=STALE_MS)
        bench.jobs.states["job"] = JobState.FAILED
        bench.stored(lines=1)
        await bench.caretaker.check(LEASE)
        assert (bench.runs.settled, len(bench.repairs.requeued)) == ([], 1)

    async def test_an_output_that_came_too_late_does_not_keep_the_shard(self, bench: Bench) -> None:
        bench.finds(ShardState.RUNNING, beat_age_ms=STALE_MS)
        bench.jobs.states["job"] = JobState.FAILED
        bench.stored(lines=2)
        bench.runs.stands = False
        await bench.caretaker.check(LEASE)
        assert len(bench.repairs.requeued) == 1

    async def test_storage_that_is_down_postpones_the_repair(self, bench: Bench) -> None:
        bench.finds(ShardState.RUNNING, beat_age_ms=STALE_MS)
        bench.jobs.states["job"] = JobState.FAILED
        bench.payloads.down = True
        await bench.caretaker.check(LEASE)
        assert (bench.repairs.requeued, bench.runs.settled) == ([], [])

    async def test_storage_that_never_gives_an_output_does_not_hold_its_shard_for_ever(
        self, bench: Bench
    ) -> None:
        bench.finds(ShardState.RUNNING, beat_age_ms=Patience().storage_ms)
        bench.jobs.states["job"] = JobState.FAILED
        bench.payloads.down = True
        await bench.caretaker.check(LEASE)
        assert (len(bench.repairs.requeued), bench.runs.settled) == (1, [])
