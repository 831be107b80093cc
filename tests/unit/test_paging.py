"""Where a request stands, and which tokens a page can have given."""

from itertools import islice

import pytest

from shared.core.paging import Place, parse_page, places
from shared.core.sharding import ModelPlan
from shared.errors import InvalidRequest

MODELS = [ModelPlan("mistral", 0, 3, 5, [(2, 2), (1, 1)]), ModelPlan("llama-70b", 3, 1, 2, [(2, 1)])]
ORDER = [(0, 3), (1, 2), (0, 2)]


def test_places_follow_the_request_order_over_the_models() -> None:
    found = [(place.shard, place.offset) for place in places(MODELS, ORDER, 0)]
    assert found == [(0, 0), (0, 1), (1, 0), (3, 0), (3, 1), (1, 1), (2, 0)]


def test_a_start_in_the_middle_skips_without_walking() -> None:
    many = [ModelPlan("mistral", 0, 10**9, 10**10, [(10, 10**9)])]
    assert list(islice(places(many, [(0, 10**10)], 10**9 + 7), 1)) == [Place(10**8, 7)]


def test_no_token_is_the_first_page() -> None:
    assert parse_page(None, 10) == 0


@pytest.mark.parametrize("token", ["0", "10", "-1", "+1", "1.0", "", " 1", "x", "9" * 13, "\u0661"])
def test_a_token_that_no_page_gave_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_page(token, 10)
    assert caught.value.param == "page"


def test_a_token_is_the_index_of_its_first_request() -> None:
    assert parse_page("9", 10) == 9
