"""The numbers that follow from a model card: shard sizes, jobs at a time, timeouts."""

from dataclasses import replace

import pytest

from handlers.catalog import CARDS
from shared.core.cards import TAKE_LAG_S, ModelCard

MISTRAL, LLAMA = CARDS


@pytest.mark.parametrize(
    ("requests", "size"), [(1, 8), (64, 8), (100, 13), (200, 25), (256, 32), (100_000, 32)]
)
def test_a_small_batch_is_shared_by_several_workers(requests: int, size: int) -> None:
    assert MISTRAL.shard_size(requests) == size


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_jobs_in_hand_keep_the_engine_full_over_the_pause_of_the_take_loop(card: ModelCard) -> None:
    in_hand = card.concurrency() * card.shard_requests
    assert in_hand >= card.slots + card.slots / card.request_s * TAKE_LAG_S


def test_an_engine_that_holds_more_is_given_more_jobs() -> None:
    assert MISTRAL.concurrency(slots=256, request_s=0.45) > MISTRAL.concurrency()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_there_is_always_a_next_job_taken_before_the_first_drains(card: ModelCard) -> None:
    assert card.concurrency(slots=1, request_s=600) == 2


def test_a_job_is_never_given_less_than_ten_minutes() -> None:
    assert MISTRAL.execution_timeout_s(1, 2) == 600


def test_a_shards_timeout_allows_for_the_shards_that_share_its_engine() -> None:
    alone, shared = LLAMA.execution_timeout_s(8, 1), LLAMA.execution_timeout_s(8, 20)
    assert shared > 2 * alone


def test_a_deployment_may_fix_the_concurrency_and_the_timeout_follows() -> None:
    fixed = replace(LLAMA, fixed_concurrency=64)
    assert fixed.concurrency() == fixed.concurrency(slots=1, request_s=600) == 64
    assert fixed.execution_timeout_s(8, fixed.concurrency()) > LLAMA.execution_timeout_s(
        8, LLAMA.concurrency()
    )
