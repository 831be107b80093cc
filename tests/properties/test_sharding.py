"""Whatever the requests are: shards cover each of them once and within the caps, and paging finds them all again."""

from itertools import islice, pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.core.cards import ModelCard
from shared.core.paging import Place, places
from shared.core.sharding import Routed, plan_batch, run_lengths

SHARD_BYTES = 1000


def card(name: str, shard_requests: int) -> ModelCard:
    return ModelCard(
        name=name,
        repository=name,
        context_tokens=8192,
        gpus=1,
        slots=8,
        request_s=1.0,
        request_max_s=10.0,
        shard_requests=shard_requests,
        shard_bytes=SHARD_BYTES,
    )


CARDS = (card("small", 3), card("large", 16), card("single", 1))
routed = st.builds(Routed, st.sampled_from(CARDS), st.integers(1, SHARD_BYTES))
batches = st.lists(routed, min_size=1, max_size=120)


@given(batches)
def test_every_request_is_in_exactly_one_shard_of_its_model(batch: list[Routed]) -> None:
    plan = plan_batch(batch)
    assert sorted(index for members in plan.members for index in members) == list(range(len(batch)))
    for model in plan.models:
        for number in range(model.first, model.first + model.shards):
            assert {batch[index].card.name for index in plan.members[number]} == {model.model}


@given(batches)
def test_shards_keep_within_the_caps_and_the_request_order(batch: list[Routed]) -> None:
    for members in plan_batch(batch).members:
        assert members == sorted(members)
        assert 1 <= len(members) <= batch[members[0]].card.shard_requests
        assert sum(batch[index].size_bytes for index in members) <= SHARD_BYTES


@given(batches)
def test_the_stored_plan_says_what_the_members_are(batch: list[Routed]) -> None:
    plan = plan_batch(batch)
    assert [model.first for model in plan.models] == [
        sum(earlier.shards for earlier in plan.models[:number]) for number in range(len(plan.models))
    ]
    for model in plan.models:
        sizes = [size for size, times in model.sizes for _ in range(times)]
        assert sizes == [len(members) for members in plan.members[model.first : model.first + model.shards]]
        assert sum(sizes) == model.requests
    assert [plan.models[number].model for number, times in plan.order for _ in range(times)] == [
        item.card.name for item in batch
    ]


@given(batches)
def test_the_same_requests_give_the_same_plan(batch: list[Routed]) -> None:
    assert plan_batch(batch) == plan_batch(list(batch))


@given(batches, st.data())
def test_paging_finds_every_request_from_any_start(batch: list[Routed], data: st.DataObject) -> None:
    plan = plan_batch(batch)
    naive = {
        index: Place(number, offset)
        for number, members in enumerate(plan.members)
        for offset, index in enumerate(members)
    }
    start = data.draw(st.integers(0, len(batch)))
    found = list(islice(places(plan.models, plan.order, start), len(batch) + 1))
    assert found == [naive[index] for index in range(start, len(batch))]


@given(st.lists(st.integers(0, 3)))
def test_run_lengths_expand_to_what_they_were_made_from(values: list[int]) -> None:
    runs = run_lengths(values)
    assert [value for value, times in runs for _ in range(times)] == values
    assert all(one[0] != two[0] for one, two in pairwise(runs))
