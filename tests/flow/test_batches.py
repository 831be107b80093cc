"""A batch from its create to its last page: every custom_id once, in order, byte for byte; statuses that add up."""

import asyncio
import json
from typing import Any

from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud
from tests.flow.expected import assert_all_succeeded, assert_status_shape, counts, watch

STRANGE_IDS = [
    "lead_1_email",
    "ключ-ключ",
    "日本語",
    "\U0001f469\U0001f3fd\u200d\U0001f680 family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "quo\"te's and \\back\\slashes\\",
    "line\nbreak\r\n and \t tab",
    " leading and trailing ",
    "x" * 256,
    "🦔" * 256,
    "\u202eright to left\u202c",
    "null",
    "{}",
    "\x00\x01\x7f",
    "a:b:c/../%2F?&=#",
    "\u2028\u2029",
    "e\u0301",
    "\u00e9",
]


def mixed_requests(count: int) -> list[dict[str, Any]]:
    """Both models in irregular turns, strange custom_ids, no system text here and a token limit there."""
    requests = make_requests(count)
    for number, request in enumerate(requests):
        if number < len(STRANGE_IDS):
            request["custom_id"] = STRANGE_IDS[number]
            request["params"]["messages"][0]["content"] += f" As {STRANGE_IDS[number]}."
        model = "llama-70b" if number % 7 in (0, 1, 5) else "mistral"
        request["metadata"] = {"model_hint": model, "leadId": f"lead-{number}", "score": number / 3}
        if number % 11 == 0:
            del request["params"]["system"]
        if number % 13 == 0:
            request["params"] |= {"max_tokens": 5, "temperature": 0, "top_p": 0.9}
    return requests


async def test_a_mixed_batch_gives_one_line_per_custom_id_in_request_order(client: BatchClient) -> None:
    requests = mixed_requests(300)
    created = await client.call("create", stage="email", requests=requests)
    assert created.keys() == {"id"}
    statuses = await watch(client, created["id"])
    last = statuses[-1]
    assert last["counts"] == counts(300, 300)
    assert (last["lost_attempts"], last["stage"], last["priority"]) == (0, "email", "normal")
    by_model = [request["metadata"]["model_hint"] for request in requests]
    assert last["models"] == {model: by_model.count(model) for model in ("llama-70b", "mistral")}
    lines = await client.lines(created["id"])
    assert_all_succeeded(lines, requests)
    for name in ("input_tokens", "output_tokens"):
        assert last["usage"][name] == sum(line["usage"][name] for line in lines)
    assert last["gpu_ms"] > 0


async def test_a_batch_reports_live_progress_before_it_ends(client: BatchClient) -> None:
    batch_id = (await client.call("create", stage="email", requests=make_requests(600)))["id"]
    statuses = await watch(client, batch_id)
    middle = [status for status in statuses if 0 < status["counts"]["succeeded"] < 600]
    assert middle
    assert {status["processing_status"] for status in middle} == {"processing"}
    assert [status["ended_at"] for status in middle] == [None] * len(middle)


async def test_an_ended_batch_answers_the_same_each_time(client: BatchClient) -> None:
    requests = make_requests(40)
    batch_id = (await client.call("create", stage="polish", requests=requests))["id"]
    await client.wait(batch_id)
    first, second = [
        await asyncio.gather(client.call("status", id=batch_id), client.lines(batch_id)) for _ in range(2)
    ]
    assert first == second
    assert_all_succeeded(first[1], requests, "llama-70b")


async def test_batches_that_run_together_keep_their_results_apart(client: BatchClient) -> None:
    batches = [make_requests(50, f"Batch {number}, lead {{n}}.") for number in range(4)]
    stages = ["email", "polish"] * 2
    created = await asyncio.gather(
        *(client.call("create", stage=stage, requests=b) for stage, b in zip(stages, batches, strict=True))
    )
    for batch, stage, requests in zip(created, stages, batches, strict=True):
        await watch(client, batch["id"])
        model = "llama-70b" if stage == "polish" else "mistral"
        assert_all_succeeded(await client.lines(batch["id"]), requests, model)


async def test_list_gives_every_batch_newest_first_page_by_page(client: BatchClient) -> None:
    requests = make_requests(1)
    made = [(await client.call("create", stage="email", requests=requests))["id"] for _ in range(5)]
    for batch_id in made:
        await client.wait(batch_id)
    listed: list[dict[str, Any]] = []
    page: dict[str, Any] = {}
    while len(listed) < len(made):
        answer = await client.call("list", limit=2, **page)
        assert answer.keys() == {"batches", "next_page"}
        assert len(answer["batches"]) <= 2
        listed += answer["batches"]
        page = {"page": answer["next_page"]}
    assert [batch["id"] for batch in listed[:5]] == made[::-1]
    for batch in listed[:5]:
        assert_status_shape(batch)
        assert batch == await client.call("status", id=batch["id"])


async def test_curl_creates_polls_and_fetches_a_batch(cloud: FlowCloud) -> None:
    requests = make_requests(3)
    created = await curl(cloud, {"operation": "create", "stage": "email", "requests": requests})
    batch_id = created["id"]

    async def ended() -> bool:
        status = await curl(cloud, {"operation": "status", "id": batch_id})
        return bool(status["processing_status"] == "ended")

    async with asyncio.timeout(20):
        while not await ended():
            pass
    page = await curl(cloud, {"operation": "results", "id": batch_id})
    assert page.keys() == {"results", "next_page"}
    assert page["next_page"] is None
    assert_all_succeeded(page["results"], requests)


async def curl(cloud: FlowCloud, job_input: dict[str, Any]) -> dict[str, Any]:
    """The output of one operation, called as a shell would."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--fail-with-body"),
        *("-X", "POST", f"{cloud.address['batch_url']}/runsync?wait=60000"),
        *("-H", f"Authorization: Bearer {cloud.address['api_key']}", "-H", "Content-Type: application/json"),
        *("-d", json.dumps({"input": job_input})),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    job = json.loads(out)
    assert job["status"] == "COMPLETED", job
    output: dict[str, Any] = job["output"]
    return output
