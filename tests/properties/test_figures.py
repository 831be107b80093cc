"""Sizes, timeouts and rates keep within their bounds for any card and any load."""

from hypothesis import given
from hypothesis import strategies as st

from shared.core.cards import ModelCard
from shared.core.metrics import RATE_WINDOW_MINUTES, rates

cards = st.builds(
    ModelCard,
    name=st.just("m"),
    repository=st.just("m"),
    context_tokens=st.just(8192),
    gpus=st.just(1),
    slots=st.integers(1, 1024),
    request_s=st.floats(0.01, 600),
    request_max_s=st.floats(0.1, 3600),
    shard_requests=st.integers(1, 512),
)
minutes = st.dictionaries(
    st.integers(0, 100), st.tuples(st.integers(0, 1000), st.integers(0, 10**6), st.integers(0, 10**6))
)


@given(cards, st.integers(1, 100_000))
def test_a_shard_is_never_empty_nor_beyond_the_card(card: ModelCard, requests: int) -> None:
    assert 1 <= card.shard_size(requests) <= card.shard_requests


@given(cards)
def test_the_work_in_hand_fills_the_engine(card: ModelCard) -> None:
    concurrency = card.concurrency()
    assert concurrency >= 2
    assert concurrency * card.shard_requests >= card.slots


@given(cards, st.integers(1, 512))
def test_a_job_may_run_as_long_as_all_that_share_its_engine_need(card: ModelCard, requests: int) -> None:
    concurrency = card.concurrency()
    timeout_s = card.execution_timeout_s(requests, concurrency)
    ahead = requests + (concurrency - 1) * card.shard_requests
    assert timeout_s >= 600
    assert timeout_s >= ahead / card.slots * card.request_max_s


@given(minutes, st.integers(0, 60 * 100))
def test_rates_are_what_the_last_minutes_hold(figures: dict[int, tuple[int, int, int]], now_s: int) -> None:
    requests_per_s, tokens_per_s = rates(figures, now_s)
    this = now_s // 60
    recent = [figures[m] for m in range(this - RATE_WINDOW_MINUTES + 1, this + 1) if m in figures]
    most_s, least_s = 60 * RATE_WINDOW_MINUTES, 60 * (RATE_WINDOW_MINUTES - 1)
    requests, tokens = sum(item[0] for item in recent), sum(item[2] for item in recent)
    assert requests / most_s <= requests_per_s <= requests / least_s
    assert tokens / most_s <= tokens_per_s <= tokens / least_s
