"""Many calls about one batch at the same moment: each gets a true answer."""

import asyncio
from typing import Any

from tests.client import BatchClient, make_requests
from tests.flow.cloud import eventually
from tests.flow.expected import assert_all_succeeded, assert_status_shape, counts, watch

MANY = make_requests(800)


async def test_two_hundred_statuses_at_once_are_all_answered(client: BatchClient) -> None:
    batch_id = (await client.call("create", stage="email", requests=MANY))["id"]
    statuses = await asyncio.gather(*(client.call("status", id=batch_id) for _ in range(200)))
    for status in statuses:
        assert_status_shape(status)
    last = (await watch(client, batch_id))[-1]
    assert (last["counts"], last["lost_attempts"]) == (counts(len(MANY), len(MANY)), 0)
    storm = await asyncio.gather(*(client.call("status", id=batch_id) for _ in range(200)))
    assert storm == [last] * 200
    assert_all_succeeded(await client.lines(batch_id), MANY)


async def test_results_read_while_a_batch_runs_are_final_and_in_order(client: BatchClient) -> None:
    batch_id = (await client.call("create", stage="email", requests=MANY))["id"]
    seen: list[list[dict[str, Any]]] = []

    async def all_there() -> bool:
        readers = (client.lines(batch_id, partial=True) for _ in range(4))
        seen.extend(await asyncio.gather(*readers))
        return len(seen[-1]) == len(MANY)

    await eventually(all_there, "all lines are there", timeout_s=60)
    lines = await client.lines(batch_id)
    assert_all_succeeded(lines, MANY)
    order = {line["custom_id"]: number for number, line in enumerate(lines)}
    for partial in seen:
        places = [order[line["custom_id"]] for line in partial]
        assert places == sorted(set(places)), "in order, and none twice"
        assert partial == [lines[place] for place in places], "a line never changes"
    assert any(0 < len(partial) < len(MANY) for partial in seen)
