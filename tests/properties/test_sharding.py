"""Whatever the requests are: shards cover each of them once and within the caps, and paging finds them all again."""

import json
from dataclasses import asdict
from itertools import islice, pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.core.cards import ModelCard
from shared.core.paging import Place, part_of, places
from shared.core.sharding import PARTS_MAX, SHARDS_PER_PART, PartPlan, Routed, cut_part, run_lengths

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
parts = st.integers(0, PARTS_MAX - 1)


@given(batches, parts)
def test_every_request_is_in_exactly_one_shard_of_its_model(batch: list[Routed], part: int) -> None:
    cut = cut_part(batch, part)
    assert sorted(index for members in cut.members.values() for index in members) == list(range(len(batch)))
    for model in cut.plan.models:
        for number in model.numbers:
            assert {batch[index].card.name for index in cut.members[number]} == {model.model}


@given(batches)
def test_shards_keep_within_the_caps_and_the_request_order(batch: list[Routed]) -> None:
    for members in cut_part(batch).members.values():
        assert members == sorted(members)
        assert 1 <= len(members) <= batch[members[0]].card.shard_requests
        assert sum(batch[index].size_bytes for index in members) <= SHARD_BYTES


@given(batches, parts)
def test_the_stored_plan_says_what_the_members_are(batch: list[Routed], part: int) -> None:
    cut = cut_part(batch, part)
    assert PartPlan.parse(json.loads(json.dumps(asdict(cut.plan)))) == cut.plan
    assert cut.plan.requests == len(batch)
    numbers = [number for model in cut.plan.models for number in model.numbers]
    assert numbers == list(cut.members)
    assert set(numbers) <= set(range(part * SHARDS_PER_PART, (part + 1) * SHARDS_PER_PART))
    for model in cut.plan.models:
        sizes = [size for size, times in model.sizes for _ in range(times)]
        assert sizes == [len(cut.members[number]) for number in model.numbers]
        assert sum(sizes) == model.requests
    assert [cut.plan.models[number].model for number, times in cut.order for _ in range(times)] == [
        item.card.name for item in batch
    ]


@given(batches)
def test_the_same_requests_give_the_same_plan(batch: list[Routed]) -> None:
    assert cut_part(batch) == cut_part(list(batch))


@given(batches, parts, st.data())
def test_paging_finds_every_request_from_any_start(
    batch: list[Routed], part: int, data: st.DataObject
) -> None:
    cut = cut_part(batch, part)
    naive = {
        index: Place(number, offset)
        for number, members in cut.members.items()
        for offset, index in enumerate(members)
    }
    start = data.draw(st.integers(0, len(batch)))
    found = list(islice(places(cut.plan.models, cut.order, start), len(batch) + 1))
    assert found == [naive[index] for index in range(start, len(batch))]


@given(st.lists(st.integers(1, 9), min_size=1), st.data())
def test_every_index_is_in_the_part_that_counting_finds(totals: list[int], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, sum(totals) - 1))
    counted = [(part, place) for part, total in enumerate(totals) for place in range(total)]
    assert part_of(totals, index) == counted[index]


@given(st.lists(st.integers(0, 3)))
def test_run_lengths_expand_to_what_they_were_made_from(values: list[int]) -> None:
    runs = run_lengths(values)
    assert [value for value, times in runs for _ in range(times)] == values
    assert all(one[0] != two[0] for one, two in pairwise(runs))
