"""Bad input through the real handler: a typed error that names the field, no traceback, nothing stored."""

import asyncio
import json
from typing import Any

import pytest

from shared.adapters.upstash import Upstash
from tests.client import BatchClient, make_requests
from tests.flow.cloud import FlowCloud, keys_in
from tests.local_cloud.queue.core import LOST_WORKER_ERROR

INVALID = (400, "invalid_request_error")
GOOD = make_requests(1)[0]


def create(**fields: Any) -> dict[str, Any]:
    return {"operation": "create", "stage": "email", "requests": [GOOD], **fields}


def request(**fields: Any) -> dict[str, Any]:
    """A create of two requests whose second is changed."""
    return create(requests=[GOOD, {**GOOD, "custom_id": "second", **fields}])


def params(**fields: Any) -> dict[str, Any]:
    return request(params={**GOOD["params"], **fields})


NO_OPERATIONS: list[Any] = ["", None, 0, "Create", "drop", [], {}, ["create"]]

BAD_INPUTS: list[tuple[dict[str, Any], str]] = [
    ({"stage": "email"}, "operation"),
    *(({"operation": operation}, "operation") for operation in NO_OPERATIONS),
    ({"operation": "x" * 10_000}, "operation"),
    (create(requests=None), "requests"),
    (create(requests=[]), "requests"),
    (create(requests={"0": GOOD}), "requests"),
    (create(requests=[{**GOOD, "custom_id": "\ud800"}]), "requests[0].custom_id"),
    (create(requests="all"), "requests"),
    (create(requests=[GOOD, None]), "requests[1]"),
    (create(requests=[[GOOD]]), "requests[0]"),
    ({"operation": "create", "stage": "email"}, "requests"),
    ({"operation": "create", "requests": [GOOD]}, "stage"),
    (create(stage="poetry"), "stage"),
    (create(stage=""), "stage"),
    (create(stage=7), "stage"),
    (create(priority="urgent"), "priority"),
    (create(idempotency_key=""), "idempotency_key"),
    (create(idempotency_key="k" * 257), "idempotency_key"),
    (create(idempotency_keys="typo"), "idempotency_keys"),
    (create(requests=[GOOD, GOOD]), "requests[1].custom_id"),
    (request(custom_id=""), "requests[1].custom_id"),
    (request(custom_id="x" * 257), "requests[1].custom_id"),
    (request(custom_id=7), "requests[1].custom_id"),
    (request(custom_id=None), "requests[1].custom_id"),
    (request(params=None), "requests[1].params"),
    (request(params={}), "requests[1].params.messages"),
    (request(metadata=[]), "requests[1].metadata"),
    (request(metadata={"model_hint": "gpt-9"}), "requests[1].metadata.model_hint"),
    (request(metadata={"model_hint": ""}), "requests[1].metadata.model_hint"),
    (params(messages=[]), "requests[1].params.messages"),
    (params(messages="hi"), "requests[1].params.messages"),
    (params(messages=[{"role": "system", "content": "x"}]), "requests[1].params.messages[0].role"),
    (params(messages=[{"role": "user"}]), "requests[1].params.messages[0].content"),
    (params(messages=[{"role": "user", "content": ""}]), "requests[1].params.messages[0].content"),
    (params(messages=[{"role": "user", "content": ["x"]}]), "requests[1].params.messages[0].content[0]"),
    (params(messages=[{"role": "user", "content": 7}]), "requests[1].params.messages[0].content"),
    (params(max_tokens=0), "requests[1].params.max_tokens"),
    (params(max_tokens="100"), "requests[1].params.max_tokens"),
    (params(max_tokens=1.5), "requests[1].params.max_tokens"),
    (params(max_tokens=8193), "requests[1].params.max_tokens"),
    (params(max_tokens=10**400), "requests[1].params.max_tokens"),
    (params(temperature=-0.1), "requests[1].params.temperature"),
    (params(temperature=2.1), "requests[1].params.temperature"),
    (params(temperature="hot"), "requests[1].params.temperature"),
    (params(stream=True), "requests[1].params.stream"),
    (params(system=["x"]), "requests[1].params.system[0]"),
    (params(system=7), "requests[1].params.system"),
    *(({"operation": name}, "id") for name in ("status", "results", "cancel", "delete")),
    *(({"operation": "status", "id": id_}, "id") for id_ in ("", "x" * 257, 7, None, ["x"])),
    ({"operation": "status", "id": f"batch_{0:024x}", "verbose": True}, "verbose"),
    ({"operation": "results", "id": f"batch_{0:024x}", "page": 1}, "page"),
    ({"operation": "results", "id": f"batch_{0:024x}", "partial": "yes"}, "partial"),
    *(({"operation": "list", "limit": limit}, "limit") for limit in (0, 1001, "20", None)),
    *(
        ({"operation": "list", "page": page}, "page")
        for page in ("", "x", "1", ":batch", "-1:batch_1", "\u0661:batch_1")
    ),
    ({"operation": "webhook"}, "body"),
    ({"operation": "webhook", "body": "{}"}, "body"),
    *(({"operation": name, "force": True}, "force") for name in ("reconcile", "health", "metrics")),
]


async def send(client: BatchClient, job_input: Any) -> dict[str, Any]:
    async with client.session.post(f"{client.url}/runsync?wait=60000", json={"input": job_input}) as answer:
        assert answer.status == 200
        job: dict[str, Any] = await answer.json()
    assert job["status"] == "FAILED"
    assert isinstance(job["error"], str), "a dict would be dropped by the platform"
    assert "Traceback" not in json.dumps(job)
    assert ".py" not in json.dumps(job)
    return job


async def stored(redis: Upstash) -> set[str]:
    kinds = ("batch", "payload", "idem", "queue")
    return {key for key in await keys_in(redis) if key.partition(":")[0] in kinds}


async def test_bad_input_is_a_typed_error_that_names_the_field_and_stores_nothing(
    cloud: FlowCloud, client: BatchClient, cloud_redis: Upstash
) -> None:
    redis_before, objects_before = await stored(cloud_redis), cloud.stored_objects()
    jobs = await asyncio.gather(*(send(client, job_input) for job_input, _ in BAD_INPUTS))
    for job, (job_input, param) in zip(jobs, BAD_INPUTS, strict=True):
        body = json.loads(job["error"])
        shown = f"{json.dumps(job_input):.200}: {body}"
        assert body.keys() == {"type", "status_code", "error", "request_id"}, shown
        assert (body["type"], body["request_id"]) == ("error", job["id"]), shown
        assert body["error"].keys() == {"type", "message", "param"}, shown
        assert (body["status_code"], body["error"]["type"]) == INVALID, shown
        assert body["error"]["param"] == param, shown
        assert body["error"]["message"].startswith(f"{param}: "), shown
        assert len(body["error"]["message"]) < 1000, shown
    assert await stored(cloud_redis) == redis_before
    assert cloud.stored_objects() == objects_before


async def test_an_empty_input_fails_as_the_platform_drops_it(client: BatchClient) -> None:
    assert (await send(client, {}))["error"] == LOST_WORKER_ERROR


@pytest.mark.parametrize("job_input", [[], "create", 7, None, True])
async def test_an_input_that_is_no_object_is_refused_by_the_platform(
    client: BatchClient, job_input: Any
) -> None:
    async with client.session.post(f"{client.url}/runsync", json={"input": job_input}) as answer:
        assert answer.status == 400


async def test_a_batch_beyond_the_limit_is_too_large_and_stores_nothing(
    small_cloud: FlowCloud, small_client: BatchClient
) -> None:
    objects_before = small_cloud.stored_objects()
    job = await send(small_client, create(requests=make_requests(61)))
    body = json.loads(job["error"])
    assert (body["status_code"], body["error"]["type"]) == (413, "request_too_large")
    assert body["error"]["param"] == "requests"
    assert small_cloud.stored_objects() == objects_before
