"""Batches are cut by count and by bytes; equal shards are stored as one run."""

from dataclasses import replace

from handlers.catalog import CARDS
from shared.core.sharding import Routed, cut_part

MISTRAL, LLAMA = CARDS


def test_a_large_batch_is_cut_by_the_cards_size() -> None:
    [model] = cut_part([Routed(MISTRAL, 100)] * 1000).plan.models
    assert (model.first, model.shards, model.requests) == (0, 32, 1000)
    assert model.sizes == [(32, 31), (8, 1)]


def test_a_small_batch_is_spread_over_several_shards() -> None:
    [model] = cut_part([Routed(MISTRAL, 100)] * 100).plan.models
    assert model.sizes == [(13, 7), (9, 1)]


def test_one_request_is_one_shard() -> None:
    assert cut_part([Routed(LLAMA, 1)]).members == {0: [0]}


def test_models_have_shards_of_their_own_and_the_order_is_kept() -> None:
    cut = cut_part([Routed(card, 100) for card in (MISTRAL, MISTRAL, LLAMA, MISTRAL)])
    assert [(model.model, model.first) for model in cut.plan.models] == [("mistral", 0), ("llama-70b", 1)]
    assert cut.members == {0: [0, 1, 3], 1: [2]}
    assert cut.order == [(0, 2), (1, 1), (0, 1)]


def test_large_requests_fill_a_shard_by_bytes() -> None:
    card = replace(MISTRAL, shard_bytes=1000)
    cut = cut_part([Routed(card, size) for size in (600, 400, 1, 1000, 500)])
    assert list(cut.members.values()) == [[0, 1], [2], [3], [4]]
