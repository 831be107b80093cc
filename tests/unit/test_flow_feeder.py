"""Feeding: claims become jobs, refusals come back and rest the endpoint, many kicks are one round."""

import asyncio
from dataclasses import replace

import pytest

from handlers.catalog import CARDS
from shared.errors import EndpointUnavailable
from shared.flow.feeder import Feeder
from shared.ports.state import Claim, Claimed, Endpoint, ShardRef
from tests.fakes import FakeJobs, FakeQueue, FakeRepairs

ENDPOINT = Endpoint("ep", "http://runpod.invalid/v2/ep", "mistral")
CARD = {card.name: card for card in CARDS}["mistral"]


class Bench:
    def __init__(self) -> None:
        self.queue, self.repairs, self.jobs = FakeQueue(), FakeRepairs(), FakeJobs()
        self.feeder = Feeder(
            self.queue,
            self.repairs,
            self.jobs,
            {"mistral": ENDPOINT},
            {"mistral": CARD},
            lambda batch: f"https://hook/{batch}",
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def claim(shard: int, left_ms: int = 3_600_000) -> Claim:
    return Claim(ShardRef("batch_1", shard), attempt=2, requests=32, left_ms=left_ms)


async def test_a_claim_becomes_a_job_of_references_with_limits_and_webhook(bench: Bench) -> None:
    bench.queue.answers.append(Claimed([claim(3)], [], 0))
    await bench.feeder.kick("mistral", ["head"])
    [job] = bench.jobs.submitted
    assert job.job_input == {"batch": "batch_1", "shard": 3, "attempt": 2, "endpoint": "ep"}
    assert (job.endpoint, job.webhook) == (ENDPOINT, "https://hook/batch_1")
    timeout_ms = 1000 * CARD.execution_timeout_s(32, CARD.concurrency())
    assert (job.policy.execution_timeout_ms, job.policy.ttl_ms) == (timeout_ms, 3_660_000)
    [submitted] = bench.queue.recorded
    assert (submitted.ref, submitted.attempt, submitted.job) == (ShardRef("batch_1", 3), 2, "fake-1")
    assert bench.queue.asked == [["head"]]


async def test_the_job_of_a_shard_that_runs_alone_says_so(bench: Bench) -> None:
    bench.queue.answers.append(Claimed([replace(claim(3), alone=True)], [], 0))
    await bench.feeder.kick("mistral")
    assert bench.jobs.submitted[0].job_input["alone"] is True
    assert "canary" not in bench.jobs.submitted[0].job_input


async def test_the_job_of_a_shard_that_takes_a_canary_along_says_so(bench: Bench) -> None:
    bench.queue.answers.append(Claimed([replace(claim(3), alone=True, canary=True)], [], 0))
    await bench.feeder.kick("mistral")
    job_input = bench.jobs.submitted[0].job_input
    assert (job_input["alone"], job_input["canary"]) == (True, True)


async def test_a_job_outlives_its_batch_so_that_it_can_settle_what_it_finished(bench: Bench) -> None:
    bench.queue.answers.append(Claimed([claim(0, left_ms=5)], [], 0))
    await bench.feeder.kick("mistral")
    assert bench.jobs.submitted[0].policy.ttl_ms == 60_005


async def test_it_goes_on_with_the_heads_of_the_answer_until_there_is_no_more(bench: Bench) -> None:
    bench.queue.answers.extend(
        [Claimed([], ["h1"], 9), Claimed([claim(0)], ["h2"], 8), Claimed([claim(1)], [], 7)]
    )
    await bench.feeder.kick("mistral")
    assert bench.queue.asked == [[], ["h1"], ["h2"]]
    assert len(bench.jobs.submitted) == 2


async def test_it_stops_where_the_window_is_full(bench: Bench) -> None:
    bench.queue.answers.extend([Claimed([claim(0)], ["h1"], 0), Claimed([claim(1)], [], 0)])
    await bench.feeder.kick("mistral")
    assert len(bench.jobs.submitted) == 1


async def test_a_refusal_gives_the_shard_back_rests_the_endpoint_and_stops_the_round(bench: Bench) -> None:
    bench.jobs.refusals.append(EndpointUnavailable("429", retry_after_s=7))
    bench.queue.answers.append(Claimed([claim(0), claim(1)], ["h1"], 5))
    await bench.feeder.kick("mistral")
    [requeued] = bench.repairs.requeued
    assert (requeued.ref.shard, requeued.blame, requeued.seen.attempt) == (0, False, 2)
    assert [item.ref.shard for item in bench.queue.recorded] == [1]
    assert bench.queue.rests == [7]
    assert len(bench.queue.asked) == 1


@pytest.mark.parametrize(("refusals", "healthy"), [(0, [True]), (1, [False]), (2, [])])
async def test_an_endpoint_that_refused_one_of_several_jobs_is_not_called_healthy(
    bench: Bench, refusals: int, healthy: list[bool]
) -> None:
    bench.jobs.refusals.extend([EndpointUnavailable("429")] * refusals)
    bench.queue.answers.append(Claimed([claim(0), claim(1)], [], 5))
    await bench.feeder.kick("mistral")
    assert bench.queue.healthy == healthy


async def test_kicks_during_a_round_are_one_more_round_with_all_their_heads(bench: Bench) -> None:
    task = bench.feeder.kick("mistral")
    assert bench.feeder.kick("mistral", ["b"]) is task
    assert bench.feeder.kick("mistral", ["a"]) is task
    await task
    assert bench.queue.asked == [[], ["a", "b"]]
    await bench.feeder.kick("mistral")
    assert len(bench.queue.asked) == 3


async def test_a_store_that_does_not_answer_ends_the_round_quietly(bench: Bench) -> None:
    bench.queue.down = True
    await asyncio.wait_for(bench.feeder.kick("mistral"), 20)
    bench.queue.down = False
    await bench.feeder.kick("mistral")
    assert len(bench.queue.asked) == 1
