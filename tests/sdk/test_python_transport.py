"""The Python transport on a scripted RunPod: the same for the client in threads and for the one in an event loop."""

import asyncio
import gzip
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from runpod_anthropic import (
    AsyncRunPodTransport,
    CreateKeys,
    Options,
    RunPodTransport,
    async_http_client,
    find_requests,
    http_client,
    parts_of,
)

KEY = "rpa_TESTKEY0123456789"
SDK_KEY = "sk-ant-SECRET"
ORIGIN = "https://api.anthropic.com"
BATCHES = "/v1/messages/batches"

Reply = httpx.Response | Exception
Script = Callable[[dict[str, Any], int], Reply]


def completed(output: Any) -> httpx.Response:
    return httpx.Response(200, json={"id": "sync-1", "status": "COMPLETED", "output": output})


def answered(status: int, body: Any = None, **headers: str) -> httpx.Response:
    text = body if isinstance(body, str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return completed(
        {"status_code": status, "headers": {"content-type": "application/json", **named}, "body": text}
    )


def unfinished() -> httpx.Response:
    return httpx.Response(200, json={"id": "sync-1", "status": "IN_QUEUE"})


@dataclass
class World:
    """A RunPod that answers as a script says, a clock that does not wait, and one client of either kind."""

    kind: str
    script: Script | Sequence[Reply]
    options: Mapping[str, Any] = field(default_factory=dict)
    calls: list[httpx.Request] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        options = Options("https://runpod.test/v2/ep/", KEY, now=lambda: self.now_s, chance=lambda: 0.5)
        options = Options(**{**options.__dict__, **self.options})
        runpod = httpx.MockTransport(self._answer)
        self.sync: Any = RunPodTransport(httpx, options, transport=runpod, sleep=self._sleep)
        self.asynchronous: Any = AsyncRunPodTransport(httpx, options, transport=runpod, sleep=self._asleep)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            number = len(self.calls)
            self.calls.append(request)
            reply = self.script(input_of(request), number) if callable(self.script) else self.script[number]
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds

    async def _asleep(self, seconds: float) -> None:
        self._sleep(seconds)

    @property
    def inputs(self) -> list[dict[str, Any]]:
        return [input_of(request) for request in self.calls]

    @property
    def keys(self) -> list[str]:
        return [asked["headers"]["idempotency-key"] for asked in self.inputs]

    def send(self, method: str, path: str, body: str | None = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        arguments: dict[str, Any] = {"content": body, "headers": named}
        url = path if "://" in path else f"{ORIGIN}{path}"
        if self.kind == "sync":
            return httpx.Client(transport=self.sync, timeout=600).request(method, url, **arguments)

        async def ask() -> httpx.Response:
            return await httpx.AsyncClient(transport=self.asynchronous, timeout=600).request(
                method, url, **arguments
            )

        return asyncio.run(ask())

    def create(self, body: str, retry: int = 0, **headers: str) -> httpx.Response:
        return self.send("POST", BATCHES, body, x_stainless_retry_count=str(retry), **headers)

    def read_chunks(self, path: str, count: int) -> list[bytes]:
        """The first chunks of a body that is closed then."""
        if self.kind == "sync":
            with httpx.Client(transport=self.sync, timeout=600).stream("GET", f"{ORIGIN}{path}") as response:
                chunks = response.iter_bytes()
                return [next(chunks) for _ in range(count)]

        async def read() -> list[bytes]:
            client = httpx.AsyncClient(transport=self.asynchronous, timeout=600)
            async with client.stream("GET", f"{ORIGIN}{path}") as response:
                chunks = response.aiter_bytes()
                return [await anext(chunks) for _ in range(count)]

        return asyncio.run(read())


def input_of(request: httpx.Request) -> dict[str, Any]:
    return dict(json.loads(request.content)["input"]) if request.content else {}


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest) -> Callable[..., World]:
    return lambda script, **options: World(request.param, script, options)


Worlds = Callable[..., World]


def test_a_request_travels_whole_and_its_answer_comes_back_whole(world: Worlds) -> None:
    runpod = world([answered(404, {"type": "error"}, request_id="req_1")])
    answer = runpod.send("GET", f"{BATCHES}?limit=5", accept="application/json", x_batch_stage="email")
    assert (answer.status_code, answer.json()) == (404, {"type": "error"})
    assert answer.headers["request-id"] == "req_1"
    assert runpod.inputs == [
        {
            "operation": "http",
            "method": "GET",
            "path": BATCHES,
            "query": {"limit": "5"},
            "headers": {
                "accept": "application/json",
                "x-batch-stage": "email",
                "host": "api.anthropic.com",
                "x-forwarded-proto": "https",
            },
        }
    ]
    assert str(runpod.calls[0].url) == "https://runpod.test/v2/ep/runsync?wait=60000"


def test_the_sdks_credentials_go_nowhere_and_runpods_key_to_the_batch_endpoint_only(world: Worlds) -> None:
    runpod = world(lambda _, __: answered(200))
    for name in ("authorization", "x_api_key", "cookie", "proxy_authorization", "x_mine"):
        runpod.send("GET", "http://elsewhere.example:8080/prefix/v1/models", **{name: SDK_KEY})
    for call in runpod.calls:
        assert call.url.host == "runpod.test"
        assert call.headers["authorization"] == f"Bearer {KEY}"
        assert SDK_KEY not in str(call.headers.raw)
        assert SDK_KEY not in call.content.decode()
        assert KEY not in call.content.decode()
        assert input_of(call)["path"] == "/v1/models"
        assert input_of(call)["headers"]["host"] == "elsewhere.example:8080"
        assert input_of(call)["headers"]["x-forwarded-proto"] == "http"


def test_a_redirect_of_runpods_is_not_followed(world: Worlds) -> None:
    runpod = world(
        lambda _, __: httpx.Response(307, headers={"location": "https://evil.test"}), max_retries=0
    )
    assert runpod.send("GET", BATCHES).status_code == 502
    assert {call.url.host for call in runpod.calls} == {"runpod.test"}


def test_a_compressed_answer_is_read(world: Worlds) -> None:
    body = gzip.compress(answered(200, {"id": "x"}).content)
    runpod = world([httpx.Response(200, headers={"content-encoding": "gzip"}, content=body)])
    assert runpod.send("GET", BATCHES).json() == {"id": "x"}


def test_a_job_that_is_not_final_is_polled_with_growing_pauses(world: Worlds) -> None:
    runpod = world([unfinished(), unfinished(), unfinished(), answered(200, {"ok": 1})])
    assert runpod.send("GET", BATCHES).json() == {"ok": 1}
    assert [(call.method, call.url.path.removeprefix("/v2/ep")) for call in runpod.calls[1:]] == [
        ("GET", "/status/sync-1")
    ] * 3
    assert runpod.pauses == [0.25, 0.375, 0.5625]


def test_a_job_that_runpod_lost_is_sent_again(world: Worlds) -> None:
    runpod = world([unfinished(), httpx.Response(404), answered(200)])
    assert runpod.send("GET", BATCHES).status_code == 200
    assert [call.method for call in runpod.calls] == ["POST", "GET", "POST"]


def test_a_job_that_stays_in_the_queue_is_a_timeout(world: Worlds) -> None:
    runpod = world(lambda _, __: unfinished(), operation_timeout_s=10.0)
    with pytest.raises(httpx.ReadTimeout, match=r"no final answer within 10 s"):
        runpod.send("POST", "/v1/messages", "{}")
    assert runpod.now_s <= 10.0


def test_a_create_is_given_a_key_which_all_its_tries_here_share(world: Worlds) -> None:
    runpod = world([httpx.Response(524), httpx.ReadError("cut"), answered(200, {"id": "msgbatch_1"})])
    assert runpod.create("{}").json() == {"id": "msgbatch_1"}
    assert len(runpod.keys) == 3
    assert len(set(runpod.keys)) == 1
    assert runpod.pauses == [0.25, 0.5]


def test_the_sdks_retry_of_a_create_goes_under_the_key_of_the_try_that_failed(world: Worlds) -> None:
    runpod = world(lambda _, n: answered(529 if n == 0 else 200))
    for retry in (0, 1, 0):
        runpod.create("{}", retry)
    first, again, fresh = runpod.keys
    assert again == first
    assert fresh != first


def test_a_create_without_any_answer_is_retried_under_its_key_and_another_is_not(world: Worlds) -> None:
    runpod = world(lambda _, n: httpx.ReadError("cut") if n == 0 else answered(200), max_retries=0)
    with pytest.raises(httpx.ReadError):
        runpod.create('{"requests":[1]}')
    runpod.create('{"requests":[2]}', 1)
    runpod.create('{"requests":[1]}', 1, x_batch_stage="email")
    runpod.create('{"requests":[1]}', 1)
    first, other_body, other_stage, again = runpod.keys
    assert again == first
    assert len({first, other_body, other_stage}) == 3


def test_a_callers_own_key_is_kept(world: Worlds) -> None:
    runpod = world([answered(200)])
    runpod.create("{}", idempotency_key="mine")
    assert runpod.keys == ["mine"]


FAULTS: Mapping[str, tuple[httpx.Response, int, str]] = {
    "401": (httpx.Response(401, text=f"no {KEY}"), 401, "authentication_error"),
    "403": (httpx.Response(403), 403, "permission_error"),
    "429": (httpx.Response(429, text="<html>", headers={"retry-after": "7"}), 429, "rate_limit_error"),
    "500": (httpx.Response(500), 500, "api_error"),
    "524": (httpx.Response(524, text="<html>" * 1000), 524, "api_error"),
    "404": (httpx.Response(404, text="no endpoint"), 502, "api_error"),
    "no job": (httpx.Response(200, text="<html>"), 502, "api_error"),
    "no id": (httpx.Response(200, json={"status": "IN_QUEUE"}), 502, "api_error"),
    "no output": (httpx.Response(200, json={"id": "x", "status": "COMPLETED"}), 502, "api_error"),
    "nonsense": (completed({"surprise": 1}), 502, "api_error"),
    "failed job": (
        httpx.Response(200, json={"id": "x", "status": "FAILED", "error": "lost"}),
        500,
        "api_error",
    ),
    "refused job": (
        httpx.Response(
            200,
            json={"id": "x", "status": "FAILED", "error": json.dumps({"status_code": 400, "error": {}})},
        ),
        400,
        "invalid_request_error",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_runpod_is_an_answer_in_anthropics_shape_that_is_not_to_be_retried(
    world: Worlds, name: str
) -> None:
    reply, status, kind = FAULTS[name]
    runpod = world(
        lambda _, __: httpx.Response(reply.status_code, headers=reply.headers, content=reply.content),
        max_retries=1,
    )
    answer = runpod.send("GET", BATCHES)
    assert answer.status_code == status
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers.get("retry-after") == ("7" if name == "429" else None)
    error = answer.json()["error"]
    assert error["type"] == kind
    assert error["message"].startswith("Failed to call the service: ")
    assert KEY not in answer.text
    assert len(answer.text) < 2_300
    assert len(runpod.calls) == (1 if status in (400, 401, 403) or name == "404" else 2)


def test_the_services_own_error_is_passed_on_at_once(world: Worlds) -> None:
    runpod = world(lambda _, __: answered(529, {"type": "error"}))
    answer = runpod.send("GET", BATCHES)
    assert (answer.status_code, answer.headers.get("x-should-retry")) == (529, None)
    assert len(runpod.calls) == 1


def test_no_answer_at_all_is_raised_for_the_sdk_to_make_its_connection_error_of(world: Worlds) -> None:
    runpod = world(lambda _, __: httpx.ConnectError("refused"), max_retries=2)
    with pytest.raises(httpx.ConnectError):
        runpod.send("GET", BATCHES)
    assert len(runpod.calls) == 3


def test_a_call_too_large_for_runpod_is_a_413(world: Worlds) -> None:
    runpod = world([])
    answer = runpod.send("POST", "/v1/messages", "x" * 20_000_000)
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


@pytest.mark.parametrize("arguments", [("nonsense", KEY), ("https://x", ""), ("https://x", "a\nb")])
def test_unusable_options_are_refused_at_once_and_unquoted(arguments: tuple[str, str]) -> None:
    for make in (http_client, async_http_client):
        with pytest.raises(ValueError, match=r"batch_url|api_key") as refusal:
            make(*arguments, httpx=httpx)
        assert "a\nb" not in str(refusal.value)


def test_options_never_show_the_key() -> None:
    assert KEY not in repr(Options("https://x", KEY))


# ---- results -----------------------------------------------------------------------------------------------------

RESULTS = f"{BATCHES}/msgbatch_1/results"


def page_of(asked: Mapping[str, Any], count: int) -> httpx.Response:
    number = int(asked["query"].get("page", "0"))
    line = f'{{"custom_id":"r{number}"}}\n'
    return answered(200, line, x_next_page=str(number + 1)) if number + 1 < count else answered(200, line)


def test_pages_of_results_are_one_body(world: Worlds) -> None:
    runpod = world(lambda asked, _: page_of(asked, 3))
    answer = runpod.send("GET", f"{RESULTS}?partial=true")
    assert answer.text == "".join(f'{{"custom_id":"r{n}"}}\n' for n in range(3))
    assert "x-next-page" not in answer.headers
    assert [asked["query"] for asked in runpod.inputs] == [
        {"partial": "true"},
        {"partial": "true", "page": "1"},
        {"partial": "true", "page": "2"},
    ]


def test_no_page_is_fetched_before_it_is_read_and_none_after_the_body_is_closed(world: Worlds) -> None:
    runpod = world(lambda asked, _: page_of(asked, 100))
    assert runpod.read_chunks(RESULTS, 2) == [b'{"custom_id":"r0"}\n', b'{"custom_id":"r1"}\n']
    assert len(runpod.calls) == 2


def test_a_passing_error_of_a_later_page_is_retried_here_because_the_sdk_cannot(world: Worlds) -> None:
    replies = [page_of({"query": {}}, 2), answered(529, retry_after="3"), answered(500)]
    runpod = world([*replies, page_of({"query": {"page": "1"}}, 2)])
    assert len(runpod.send("GET", RESULTS).text.splitlines()) == 2
    assert runpod.pauses == [3.0, 0.5]


def test_an_error_of_a_later_page_that_stays_ends_the_body_with_it(world: Worlds) -> None:
    runpod = world(lambda asked, n: page_of(asked, 2) if n == 0 else answered(503), max_retries=2)
    with pytest.raises(httpx.RemoteProtocolError, match="503"):
        runpod.send("GET", RESULTS)
    assert len(runpod.calls) == 4


def test_a_page_that_names_itself_as_the_next_one_ends_the_body(world: Worlds) -> None:
    runpod = world(lambda _, __: answered(200, "\n", x_next_page="1"))
    with pytest.raises(httpx.RemoteProtocolError, match="names itself"):
        runpod.send("GET", RESULTS)


# ---- large creates -----------------------------------------------------------------------------------------------

REQUESTS = [{"custom_id": f"r{n}", "text": "x" * 450_000} for n in range(30)]
# Four parts: 8 requests each, 6 in the last.
LARGE = json.dumps({"requests": REQUESTS, "note": "kept"})
PART = re.compile(rf"{BATCHES}/uploads/([0-9a-f]{{64}})/(\d+)")


def part_of(asked: Mapping[str, Any]) -> int:
    match = PART.fullmatch(asked["path"])
    return int(match[2]) if match else -1


def test_a_large_create_goes_up_in_parts_and_is_made_by_reference_under_one_key(world: Worlds) -> None:
    runpod = world(lambda asked, _: answered(200, {"id": "msgbatch_1"} if asked["method"] == "POST" else {}))
    assert runpod.create(LARGE, x_batch_stage="email").json() == {"id": "msgbatch_1"}
    *parts, made = runpod.inputs
    parts.sort(key=part_of)
    assert [part_of(asked) for asked in parts] == [0, 1, 2, 3]
    held = [request for asked in parts for request in json.loads(asked["body"])["requests"]]
    assert held == REQUESTS
    [upload] = {match[1] for asked in parts if (match := PART.fullmatch(asked["path"]))}
    assert json.loads(made["body"]) == {"upload": {"key": upload, "parts": 4}, "note": "kept"}
    assert len(set(runpod.keys)) == 1
    assert {asked["headers"]["x-batch-stage"] for asked in runpod.inputs} == {"email"}


def test_a_part_that_failed_in_passing_is_sent_again_alone(world: Worlds) -> None:
    failures: list[Reply] = [httpx.Response(524), httpx.ReadError("cut"), answered(529)]

    def script(asked: Mapping[str, Any], _: int) -> Reply:
        return failures.pop(0) if part_of(asked) == 1 and failures else answered(200)

    runpod = world(script)
    assert runpod.create(LARGE).status_code == 200
    sent = [part_of(asked) for asked in runpod.inputs]
    assert (sent.count(1), len(sent)) == (4, 4 + 3 + 1)


def test_a_parts_refusal_is_the_creates_and_names_the_request_of_the_whole_batch(world: Worlds) -> None:
    message = "requests[3].custom_id: used by requests[0] too"
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    runpod = world(lambda asked, _: answered(400, error) if part_of(asked) == 1 else answered(200))
    answer = runpod.create(LARGE)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "requests[11].custom_id: used by requests[8] too"
    assert {asked["method"] for asked in runpod.inputs} == {"PUT"}


def test_a_part_without_any_answer_ends_the_create_with_the_classes_of_httpx(world: Worlds) -> None:
    runpod = world(
        lambda asked, _: httpx.ReadError("cut") if part_of(asked) == 0 else answered(200), max_retries=1
    )
    with pytest.raises(httpx.ReadError):
        runpod.create(LARGE)
    assert {asked["method"] for asked in runpod.inputs} == {"PUT"}


def test_the_sdks_retry_of_a_large_create_sends_the_same_parts(world: Worlds) -> None:
    made: list[int] = []

    def script(asked: Mapping[str, Any], number: int) -> Reply:
        if asked["method"] == "PUT":
            return answered(200)
        made.append(number)
        return answered(500 if len(made) == 1 else 200)

    runpod = world(script)
    assert [runpod.create(LARGE, retry).status_code for retry in (0, 1)] == [500, 200]
    assert len({asked["path"] for asked in runpod.inputs}) == 5
    assert len(set(runpod.keys)) == 1


def test_a_large_body_that_is_not_json_is_a_400(world: Worlds) -> None:
    answer = world(lambda _, __: answered(200)).create(LARGE[:-20])
    assert answer.status_code == 400
    assert "not JSON" in answer.text


# Text that a scanner could take for structure, and characters of one to four bytes.
TEXTS = ("", '"', "\\", '\\"', "\\\\", '"}],{', "[{", "\n\t", "é", "ключ", "🦔", '"requests":[')


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("max_bytes", [1, 300, 1_000, 1_000_000])
def test_the_parts_hold_every_request_once_in_order(indent: int | None, max_bytes: int) -> None:
    requests = [
        {
            "custom_id": f"r{n}",
            "text": TEXTS[n % 12] + "x" * (n * 7 % 40),
            "stop": TEXTS[: n % 12],
            "nested": [[], {}],
        }
        for n in range(40)
    ]
    requests = json.loads(json.dumps(requests))
    batch = {"before": ["requests", '"requests":[1]'], "requests": requests, "after": [1, {"requests": []}]}
    body = json.dumps(batch, indent=indent, ensure_ascii=False).encode()
    place = find_requests(body)
    assert place
    held: list[Any] = []
    for first, part in parts_of(body, place[1], max_bytes):
        assert first == len(held)
        held += json.loads(part)["requests"]
    assert held == requests


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"requests"', b"{}", b'{"requests":{}}', b'{"a":{"requests":[1]}}']
)
def test_a_body_without_requests_at_its_top_has_none_to_cut(body: bytes) -> None:
    assert find_requests(body) is None


def test_an_abandoned_key_is_forgotten_and_their_number_is_bounded() -> None:
    now_s = 0.0
    keys = CreateKeys(lambda: now_s)
    for n in range(1_001):
        keys.keep(f"content {n}", f"key {n}")
    assert (keys.take("content 0"), keys.take("content 1")) == (None, "key 1")
    assert keys.take("content 1") is None
    now_s = 600.0
    assert keys.take("content 2") is None


def test_of_two_abandoned_keys_the_latest_is_taken() -> None:
    keys = CreateKeys(lambda: 0.0)
    keys.keep("content", "abandoned")
    keys.keep("content", "failed")
    assert [keys.take("content") for _ in range(3)] == ["failed", "abandoned", None]
