"""Fairness between batches that want the same model."""

from tests.client import BatchClient, make_requests
from tests.flow.expected import assert_all_succeeded, watch


async def test_an_urgent_batch_created_behind_a_big_one_ends_before_it(client: BatchClient) -> None:
    # What the window holds of the big one stays ahead. Of the rest the urgent one is more, so that with an equal share
    # it would end last.
    big, urgent = make_requests(2400), make_requests(1120, "Quick, lead {n}!")
    for request in (*big, *urgent):
        request["params"]["max_tokens"] = 20
    big_id = (await client.call("create", stage="email", requests=big))["id"]
    urgent_id = (await client.call("create", stage="email", requests=urgent, priority="high"))["id"]
    urgent_end = (await watch(client, urgent_id))[-1]
    status = await client.call("status", id=big_id)
    assert status["processing_status"] == "processing"
    assert status["counts"]["pending"] > 0
    assert (urgent_end["priority"], status["priority"]) == ("high", "normal")
    assert_all_succeeded(await client.lines(urgent_id), urgent)
    big_end = (await watch(client, big_id))[-1]
    assert urgent_end["ended_at"] < big_end["ended_at"]
    assert big_end["counts"]["succeeded"] == len(big), "the urgent one took nothing from the big one"
