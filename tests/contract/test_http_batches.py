"""Anthropic's batch routes over the real Redis: shapes, status codes, and that a fault stays where it belongs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.core import codec
from shared.core.views import failed_line, succeeded_line
from shared.errors import InvalidRequest, TooLarge
from shared.flow.outputs import ShardOutput
from shared.ports.payloads import input_key, output_key
from shared.ports.state import ShardRef
from tests.conftest import Clock
from tests.contract.service import Service
from tests.contract.state import outcome
from tests.contract.test_service import iter_submitted

BATCHES = "/v1/messages/batches"
# With what some readers of lines take for the end of one.
TEXT = "Tag für\u2028 é \u0085\u2029\n"
HOST = {"host": "proxy.example", "x-forwarded-proto": "http"}


@dataclass(frozen=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> tuple[int, str]:
        assert self.body["type"] == "error"
        assert self.body["request_id"] == self.headers["request-id"]
        return self.status, self.body["error"]["type"]


async def send(
    service: Service,
    method: str,
    path: str = "",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    **query: str,
) -> Answered:
    """One HTTP request of a job of its own."""
    envelope = {
        "operation": "http",
        "method": method,
        "path": f"{BATCHES}{path}",
        "query": query,
        "headers": {**HOST, **(headers or {})},
        "body": body if isinstance(body, str) else json.dumps(body),
    }
    answer = await service.operations.handle(envelope)
    assert set(answer) == {"status_code", "headers", "body"}
    return Answered(answer["status_code"], answer["headers"], answer["body"])


def request_of(number: int, **params: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Lead {number}"}]
    return {
        "custom_id": f"lead-{number}",
        "params": {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": messages, **params},
    }


REQUESTS = [request_of(number) for number in range(6)]


async def create(service: Service, requests: Any = None, **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await send(service, "POST", body={"requests": requests or REQUESTS}, headers=named)
    assert answer.status == 200, answer.text
    batch: dict[str, Any] = answer.body
    return batch


async def stored(service: Service, batch_id: str) -> list[dict[str, Any]]:
    batch = (await service.store.batches.sweep(batch_id)).batch
    assert batch is not None
    part = await service.store.batches.part(batch_id, 0)
    assert part is not None
    numbers = [number for share in part.models for number in share.numbers]
    found = await service.payloads.get([input_key(batch.nonce, number) for number in numbers])
    return [request for data in found if data for request in codec.decode(data)]


async def run_all(service: Service) -> None:
    """Every shard that is submitted ends: all requests succeed but number 1."""
    for job in iter_submitted(service):
        ref = ShardRef(job.job_input["batch"], job.job_input["shard"])
        started = await service.store.runs.start(ref, job.job_input["attempt"], "job", "worker", job.endpoint)
        if started.verdict != "run":
            continue
        [data] = await service.payloads.get([input_key(started.nonce, ref.shard)])
        assert data is not None
        lines = [
            failed_line(request["custom_id"], job.endpoint.model, "errored", "worker_error", "lost")
            if request["custom_id"] == "lead-1"
            else succeeded_line(request["custom_id"], job.endpoint.model, TEXT, 3, 4)
            for request in codec.decode(data)
        ]
        output = ShardOutput(lines, 5)
        key = output_key(started.nonce, ref.shard, started.epoch)
        inline = service.payloads.inline(output.encode()) or ""
        assert await service.store.runs.settle(
            ref, started.epoch, job.endpoint, key, output.outcome(), inline
        )
        await service.feeder.kick(job.endpoint.model)


async def ended(service: Service) -> str:
    batch_id = str((await create(service))["id"])
    await run_all(service)
    return batch_id


class TestCreate:
    async def test_a_batch_is_made_and_told_as_anthropic_tells_it(self, service: Service) -> None:
        batch = await create(service)
        assert (batch["type"], batch["processing_status"]) == ("message_batch", "in_progress")
        assert batch["request_counts"]["processing"] == len(REQUESTS)
        assert sum(batch["request_counts"].values()) == len(REQUESTS)
        assert batch["results_url"] is batch["ended_at"] is batch["cancel_initiated_at"] is None
        assert batch == (await send(service, "GET", f"/{batch['id']}")).body

    async def test_the_answer_says_what_it_is_and_whose(self, service: Service) -> None:
        call = {"operation": "http", "method": "get", "path": f"{BATCHES}?beta=true"}
        answer = await service.operations.handle(call, "job-7")
        assert answer["headers"] == {"request-id": "job-7", "content-type": "application/json"}

    async def test_the_same_key_makes_one_batch(self, service: Service) -> None:
        first = await create(service, idempotency_key="k")
        assert (await create(service, idempotency_key="k"))["id"] == first["id"]
        other = await send(service, "POST", body={"requests": REQUESTS[:1]}, headers={"idempotency-key": "k"})
        assert other.error == (409, "invalid_request_error")
        assert other.headers["x-should-retry"] == "false"

    async def test_a_job_that_is_delivered_twice_makes_one_batch(self, service: Service) -> None:
        body = json.dumps({"requests": REQUESTS})
        call = {"operation": "http", "method": "POST", "path": BATCHES, "body": body}
        first, again = [json.loads((await service.operations.handle(call, "job-1"))["body"]) for _ in "ab"]
        assert first["id"] == again["id"]

    async def test_our_extras_ride_along_as_headers(self, service: Service) -> None:
        batch = await create(
            service, x_batch_stage="polish", x_batch_priority="high", x_batch_expires_in_s="60"
        )
        status = await service.operations.handle({"operation": "status", "id": batch["id"]})
        assert (status["stage"], status["priority"]) == ("polish", "high")
        assert status["models"] == {"llama-70b": len(REQUESTS)}
        made, expires = (datetime.fromisoformat(batch[name]) for name in ("created_at", "expires_at"))
        assert expires - made == timedelta(seconds=60)

    async def test_a_request_goes_by_its_own_stage(self, service: Service) -> None:
        requests = [request_of(0, metadata={"stage": "polish", "user_id": "u"}), request_of(1)]
        batch = await create(service, requests, x_batch_stage="email")
        status = await service.operations.handle({"operation": "status", "id": batch["id"]})
        assert status["models"] == {"llama-70b": 1, "mistral": 1}
        by_id = {request["custom_id"]: request for request in await stored(service, batch["id"])}
        assert by_id["lead-0"]["metadata"] == {"stage": "polish", "user_id": "u"}

    async def test_a_fault_of_one_request_is_that_requests_alone(self, service: Service) -> None:
        batch = await create(service, [*REQUESTS, request_of(6, max_tokens=None), request_of(7, model="x")])
        assert batch["request_counts"]["processing"] == 8
        refusals = {r["custom_id"]: r.get("refusal") for r in await stored(service, batch["id"])}
        assert {name: refusal["type"] for name, refusal in refusals.items() if refusal} == {
            "lead-6": "invalid_request_error",
            "lead-7": "not_found_error",
        }

    @pytest.mark.parametrize(
        ("body", "status", "named"),
        [
            ("{", 400, "body: must be valid JSON"),
            ("", 400, "body: must be valid JSON"),
            ('{"requests": [NaN]}', 400, "body: must be valid JSON"),
            ("[" * 100_000, 400, "body: must be valid JSON"),
            ("[]", 400, "body: must be a JSON object"),
            ({}, 400, "requests: required field is missing"),
            ({"requests": []}, 400, "requests: must have at least 1 entry"),
            ({"requests": REQUESTS, "stage": "email"}, 400, "stage: unknown field"),
            ({"requests": [{"custom_id": "a b", "params": {}}]}, 400, "requests[0].custom_id: "),
            ({"requests": [{"custom_id": "a"}]}, 400, "requests[0].params: required field is missing"),
            ({"requests": [*REQUESTS, REQUESTS[2]]}, 400, "requests[6].custom_id: the same custom_id as"),
            ({"requests": [request_of(n) for n in range(51)]}, 413, "requests: at most 50 in a batch"),
            ({"requests": [request_of(0, system="x" * 100_000)]}, 413, "requests: at most 100000 bytes"),
            ({"upload": {"key": "k"}}, 400, "upload.parts: required field is missing"),
        ],
        ids=[
            "cut", "empty", "nan", "deep", "list", "no requests", "none", "unknown field", "bad name",
            "no params", "twice", "too many", "too large", "half a reference",
        ],
    )  # fmt: skip
    async def test_a_fault_of_the_batch_is_refused_at_once_and_nothing_is_made(
        self, service: Service, body: Any, status: int, named: str
    ) -> None:
        answer = await send(service, "POST", body=body)
        assert answer.error == (status, "request_too_large" if status == 413 else "invalid_request_error")
        assert answer.body["error"]["message"].startswith(named)
        assert (await send(service, "GET")).body["data"] == []

    @pytest.mark.parametrize(
        ("header", "value"),
        [
            ("x-batch-priority", "urgent"),
            ("x-batch-expires-in-s", "soon"),
            ("x-batch-expires-in-s", "1"),
            ("x-batch-stage", "x" * 2**21),
            ("idempotency-key", "k" * 257),
        ],
        ids=["priority", "no number", "too short", "too long", "long key"],
    )
    async def test_a_bad_extra_is_refused(self, service: Service, header: str, value: str) -> None:
        answer = await send(service, "POST", body={"requests": REQUESTS}, headers={header: value})
        assert answer.status in (400, 413)
        assert (await send(service, "GET")).body["data"] == []


class TestList:
    async def test_pages_go_both_ways_newest_first(self, service: Service, clock: Clock) -> None:
        made: list[str] = []
        for _ in range(5):
            made.insert(0, (await create(service))["id"])
            clock.advance_s(1)
        first = (await send(service, "GET", limit="2")).body
        assert [batch["id"] for batch in first["data"]] == made[:2]
        assert (first["has_more"], first["first_id"], first["last_id"]) == (True, made[0], made[1])
        last = (await send(service, "GET", limit="3", after_id=first["last_id"])).body
        assert ([batch["id"] for batch in last["data"]], last["has_more"]) == (made[2:], False)
        back = (await send(service, "GET", limit="1", before_id=made[2])).body
        assert ([batch["id"] for batch in back["data"]], back["has_more"]) == ([made[1]], True)
        first = (await send(service, "GET", before_id=made[1])).body
        assert ([batch["id"] for batch in first["data"]], first["has_more"]) == ([made[0]], False)

    async def test_an_empty_list(self, service: Service) -> None:
        assert (await send(service, "GET")).body == {
            "data": [],
            "has_more": False,
            "first_id": None,
            "last_id": None,
        }

    async def test_a_list_goes_on_from_a_batch_that_was_deleted_meanwhile(
        self, service: Service, clock: Clock
    ) -> None:
        made: list[str] = []
        for _ in range(3):
            made.insert(0, await ended(service))
            clock.advance_s(1)
        for batch_id in made[:2]:
            assert (await send(service, "DELETE", f"/{batch_id}")).status == 200
        rest = (await send(service, "GET", after_id=made[1])).body
        assert [batch["id"] for batch in rest["data"]] == [made[2]]

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ({"limit": "0"}, 400),
            ({"limit": "1001"}, 400),
            ({"limit": "many"}, 400),
            ({"limit": "-1"}, 400),
            ({"after_id": f"batch_{0:024x}"}, 400),
            ({"before_id": "x"}, 404),
            ({"after_id": f"batch_{0:024x}", "before_id": f"batch_{0:024x}"}, 400),
        ],
        ids=["0", "1001", "many", "negative", "unknown", "no id", "both"],
    )
    async def test_a_bad_query_is_refused(self, service: Service, query: dict[str, str], status: int) -> None:
        answer = await send(service, "GET", headers=None, **query)
        assert answer.status == status


class TestLater:
    async def test_a_cancel_shows_canceling_then_ended(self, service: Service) -> None:
        batch_id = (await create(service))["id"]
        job = next(iter_submitted(service))
        ref = ShardRef(batch_id, job.job_input["shard"])
        started = await service.store.runs.start(ref, 1, "job", "worker", job.endpoint)
        canceling = await send(service, "POST", f"/{batch_id}/cancel")
        assert (canceling.status, canceling.body["processing_status"]) == (200, "canceling")
        assert canceling.body["cancel_initiated_at"]
        await service.store.settle(ref, started.epoch, outcome(canceled=started.requests))
        batch = (await send(service, "GET", f"/{batch_id}")).body
        assert batch["processing_status"] == "ended"
        assert batch["request_counts"]["canceled"] == sum(batch["request_counts"].values()) == len(REQUESTS)

    async def test_a_cancel_after_the_end_is_a_conflict_that_is_not_repeated(self, service: Service) -> None:
        batch_id = await ended(service)
        answer = await send(service, "POST", f"/{batch_id}/cancel")
        assert answer.error == (409, "invalid_request_error")
        assert answer.headers["x-should-retry"] == "false"

    async def test_what_has_not_ended_is_neither_deleted_nor_read(self, service: Service) -> None:
        batch_id = (await create(service))["id"]
        assert (await send(service, "DELETE", f"/{batch_id}")).error == (409, "invalid_request_error")
        assert (await send(service, "GET", f"/{batch_id}/results")).error == (400, "invalid_request_error")
        assert (await send(service, "GET", f"/{batch_id}/results", partial="true")).text == ""

    async def test_a_delete_is_anthropics_and_may_be_repeated(self, service: Service) -> None:
        batch_id = await ended(service)
        for _ in range(2):
            answer = await send(service, "DELETE", f"/{batch_id}")
            assert answer.body == {"id": batch_id, "type": "message_batch_deleted"}
        assert (await send(service, "GET", f"/{batch_id}")).error == (404, "not_found_error")

    async def test_results_are_lines_of_json_whose_address_leads_back(self, service: Service) -> None:
        batch_id = await ended(service)
        batch = (await send(service, "GET", f"/{batch_id}")).body
        assert batch["processing_status"] == "ended"
        assert batch["results_url"] == f"http://proxy.example{BATCHES}/{batch_id}/results"
        answer = await send(service, "GET", f"/{batch_id}/results")
        assert answer.headers["content-type"] == "application/x-jsonl"
        assert "x-next-page" not in answer.headers
        assert answer.text.endswith("\n")
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert [line["custom_id"] for line in lines] == [request["custom_id"] for request in REQUESTS]
        assert lines[1]["result"]["error"]["error"] == {"type": "api_error", "message": "lost"}
        assert lines[0]["result"]["message"]["content"] == [{"type": "text", "text": TEXT}]

    async def test_results_without_a_host_lead_to_anthropics(self, service: Service) -> None:
        batch_id = await ended(service)
        call = {"operation": "http", "method": "GET", "path": f"{BATCHES}/{batch_id}"}
        batch = json.loads((await service.operations.handle(call))["body"])
        assert batch["results_url"] == f"https://api.anthropic.com{BATCHES}/{batch_id}/results"

    async def test_results_come_in_pages(self, service: Service) -> None:
        batch_id = (await create(service, [request_of(number) for number in range(50)]))["id"]
        await run_all(service)
        page = await send(service, "GET", f"/{batch_id}/results")
        ids: list[str] = []
        while True:
            ids += [json.loads(line)["custom_id"] for line in page.text.splitlines()]
            if (token := page.headers.get("x-next-page")) is None:
                break
            page = await send(service, "GET", f"/{batch_id}/results", page=token)
        assert ids == [f"lead-{number}" for number in range(50)]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/cancel"),
            ("GET", "/results"),
        ],
        ids=["retrieve", "delete", "cancel", "results"],
    )
    @pytest.mark.parametrize("batch_id", [f"batch_{0:024x}", "msgbatch_1", "%2e%2e"])
    async def test_an_unknown_batch_is_not_found(
        self, service: Service, method: str, path: str, batch_id: str
    ) -> None:
        assert (await send(service, method, f"/{batch_id}{path}")).error == (404, "not_found_error")


class TestRoutes:
    @pytest.mark.parametrize("path", ["/a/b/c", "/a/result", "/uploads/k/1/2", "/../../v2"])
    async def test_an_unknown_route_is_not_found(self, service: Service, path: str) -> None:
        assert (await send(service, "GET", path)).error == (404, "not_found_error")

    async def test_another_method_is_told_which_are_there(self, service: Service) -> None:
        answer = await send(service, "PATCH")
        assert answer.error == (405, "invalid_request_error")
        assert answer.headers["allow"] == "POST, GET"

    @pytest.mark.parametrize(
        "changes",
        [
            {"method": None},
            {"method": 1},
            {"path": ""},
            {"query": {"limit": 1}},
            {"headers": []},
            {"body": {}},
            {"url": "x"},
        ],
        ids=["no method", "number", "no path", "query", "headers", "body", "unknown"],
    )
    async def test_what_is_no_http_request_is_an_error_of_the_operation(
        self, service: Service, changes: dict[str, Any]
    ) -> None:
        call = {"operation": "http", "method": "GET", "path": BATCHES, **changes}
        with pytest.raises(InvalidRequest):
            await service.operations.handle(
                {name: value for name, value in call.items() if value is not None}
            )

    async def test_a_body_of_more_than_a_call_may_have_is_413(self, service: Service) -> None:
        answer = await send(service, "POST", body=f'{{"requests": "{"x" * 20 * 2**20}"}}')
        assert answer.error == (413, "request_too_large")
        assert answer.body["error"]["message"].startswith("body: ")
        with pytest.raises(TooLarge):
            await send(service, "POST", body="x" * 22 * 2**20)
