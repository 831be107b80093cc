"""HTTP clients for Anthropic's official Python SDK: each request becomes an operation `http` of the batch endpoint.

    Anthropic(api_key="unused", http_client=runpod_anthropic.http_client(batch_url=..., api_key=...))

The host of the SDK's URL is never called. It travels as the `host` header, so that a `results_url` leads back through
here. Few headers travel, and the SDK's own API key never does.

Who retries: faults of RunPod are retried here, and what is left of them is answered with `x-should-retry: false`;
answers of the service are passed on, and the SDK retries them as it would Anthropic's. What the SDK cannot repeat by
itself, a page of results or a part of a batch, is retried here whatever failed.

What is to be done is said by generators, which yield calls and pauses; the two transports carry them out, one in
threads and one in the event loop. Works with httpx (SDK before 1.0) and httpx2, and needs nothing beside the SDK.
"""

from __future__ import annotations

import email.utils
import hashlib
import importlib
import importlib.metadata
import json
import random
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Union, cast

import anyio

__all__ = ["AsyncRunPodTransport", "RunPodTransport", "async_http_client", "http_client"]

# Quoted inside a job's input a part at most doubles: under RunPod's 20 MB for one call.
PART_MAX_BYTES = 4_000_000
BODY_MAX_BYTES = 20_000_000
PARTS_AT_ONCE = 3
# RunPod's edge cuts a call at about 100 s and the job's id is lost with it: never ask to be held that long.
MAX_HOLD_S = 60.0
MIN_HOLD_S = 1.0
# A retry of the SDK follows within seconds, a minute where the server asks for it.
KEY_KEPT_S = 600.0
KEYS_KEPT = 1_000

BATCHES = "/v1/messages/batches"
NEXT_PAGE = "x-next-page"
FORWARDED = re.compile(r"accept|content-type|idempotency-key|anthropic-.*|x-batch-.*")
ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def http_client(
    batch_url: str, api_key: str, *, httpx: Any = None, transport: Any = None, **options: Any
) -> Any:
    """A client for `Anthropic(http_client=...)`. `options` are those of Options.

    `httpx` is the module to use, by default the one that the installed SDK is built on; `transport` carries the calls
    to RunPod, for a proxy of yours. Raises ValueError if the URL or the key cannot be used.
    """
    module = httpx or _httpx_of_sdk()
    checked = Options(batch_url, api_key, **options)
    return module.Client(transport=RunPodTransport(module, checked, transport=transport))


def async_http_client(
    batch_url: str, api_key: str, *, httpx: Any = None, transport: Any = None, **options: Any
) -> Any:
    """The same for `AsyncAnthropic(http_client=...)`."""
    module = httpx or _httpx_of_sdk()
    checked = Options(batch_url, api_key, **options)
    return module.AsyncClient(transport=AsyncRunPodTransport(module, checked, transport=transport))


def _httpx_of_sdk() -> Any:
    major = int(importlib.metadata.version("anthropic").split(".")[0])
    return importlib.import_module("httpx2" if major >= 1 else "httpx")


@dataclass(frozen=True)
class Options:
    """How to reach the batch endpoint. The key is sent to `batch_url` and nowhere else."""

    batch_url: str
    api_key: str = field(repr=False)
    # Limits for one HTTP call to RunPod, and for one operation with all its retries here.
    timeout_s: float = 90.0
    operation_timeout_s: float = 600.0
    max_retries: int = 5
    # Time and chance, for tests.
    now: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://\S+", self.batch_url.strip()):
            raise ValueError(f"batch_url must begin with https:// or http://: {self.batch_url}")
        # A header with a line break in it is an error that quotes the whole header: refused here, unquoted.
        if not re.fullmatch(r"[\x21-\x7e]+", self.api_key.strip()):
            raise ValueError("api_key is empty or has characters that no key has")
        object.__setattr__(self, "batch_url", self.batch_url.strip().rstrip("/"))
        object.__setattr__(self, "api_key", self.api_key.strip())


# ---- what is to be done ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One HTTP call to RunPod."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None
    timeout_s: float


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Answer:
    """An HTTP response, of RunPod or of the service; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Request:
    """The input of the operation."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    timeout_s: float


Flow = Generator[Union[Call, Pause], Any, Answer]


class Fault(Exception):
    """RunPod gave no answer of the service. `job_gone`: its job must be sent again."""

    def __init__(self, status: int, message: str, *, retry_after: str = "", job_gone: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.job_gone = job_gone
        self.passing = _passing(status)


def _passing(status: int) -> bool:
    return status in (408, 429) or status >= 500


class Service:
    """The operation `http` as flows."""

    def __init__(self, options: Options, no_answer: type[Exception], too_late: type[Exception]) -> None:
        self._options = options
        self._no_answer = no_answer
        self._too_late = too_late

    def call(self, request: Request) -> Flow:
        """The service's answer, or one in Anthropic's shape for a fault of RunPod that stays."""
        content = _job_body(request)
        if len(content) > BODY_MAX_BYTES:
            message = f"the call has {len(content)} bytes, over RunPod's limit of {BODY_MAX_BYTES}"
            return _answer_of_fault(Fault(413, message))
        try:
            return (yield from self._call_until_final(content, request.timeout_s))
        except Fault as fault:
            return _answer_of_fault(fault)

    def call_patiently(self, request: Request) -> Flow:
        """The same, where nobody else would retry a 429 or 5xx of the service."""
        deadline = self._options.now() + request.timeout_s
        failures = 0
        while True:
            answer = yield from self.call(request)
            failures += 1
            if not _passing(answer.status) or "x-should-retry" in answer.headers:
                return answer
            delay_s = self._delay_s(failures, answer.headers.get("retry-after", ""), deadline)
            if delay_s is None:
                return answer
            yield Pause(delay_s)

    def _call_until_final(self, content: bytes, limit_s: float) -> Flow:
        deadline = self._options.now() + limit_s
        job_id: str | None = None
        looks = failures = 0
        while True:
            try:
                job = yield from (self._look(job_id, deadline) if job_id else self._submit(content, deadline))
                if "output" in job:
                    return _answer_of(job["output"])
                job_id = str(job.get("id", job_id))
                remaining_s = deadline - self._options.now()
                if remaining_s <= 0:
                    raise self._too_late(f"no final answer within {limit_s:g} s (job {job_id} is not done)")
                yield Pause(min(0.25 * 1.5**looks, 5.0, remaining_s))
                looks += 1
            except (Fault, self._no_answer) as error:
                failures += 1
                fault = error if isinstance(error, Fault) else None
                if fault and fault.job_gone:
                    job_id = None
                delay_s = self._delay_s(failures, fault.retry_after if fault else "", deadline)
                if (fault and not fault.passing) or delay_s is None:
                    raise
                yield Pause(delay_s)

    def _submit(self, content: bytes, deadline: float) -> Generator[Call, Any, dict[str, Any]]:
        hold_s = min(MAX_HOLD_S, self._options.timeout_s * 2 / 3, deadline - self._options.now())
        path = f"/runsync?wait={int(1000 * max(MIN_HOLD_S, hold_s))}"
        return (yield from self._send("POST", path, content, deadline))

    def _look(self, job_id: str, deadline: float) -> Generator[Call, Any, dict[str, Any]]:
        return (yield from self._send("GET", f"/status/{job_id}", None, deadline))

    def _send(
        self, method: str, path: str, content: bytes | None, deadline: float
    ) -> Generator[Call, Any, dict[str, Any]]:
        """The job: with its output if it is done. Raises Fault."""
        headers = {
            "authorization": f"Bearer {self._options.api_key}",
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "user-agent": "runpod-anthropic",
            **({"content-type": "application/json"} if content is not None else {}),
        }
        remaining_s = deadline - self._options.now() + MIN_HOLD_S
        timeout_s = max(0.001, min(self._options.timeout_s, remaining_s))
        answer: Answer = yield Call(method, f"{self._options.batch_url}{path}", headers, content, timeout_s)
        return _job_of(answer, looked=method == "GET", secret=self._options.api_key)

    def _delay_s(self, failures: int, retry_after: str, deadline: float) -> float | None:
        """The wait before the next try, with full jitter; None to give up."""
        if failures > self._options.max_retries:
            return None
        delay_s = max(_seconds(retry_after), self._options.chance() * min(15.0, 0.5 * 2 ** (failures - 1)))
        return delay_s if self._options.now() + delay_s < deadline else None


def _job_body(request: Request) -> bytes:
    job_input = {
        "operation": "http",
        "method": request.method,
        "path": request.path,
        "query": dict(request.query),
        "headers": dict(request.headers),
        **({"body": request.body.decode("utf-8", "replace")} if request.body else {}),
    }
    return json.dumps({"input": job_input}, ensure_ascii=False).encode()


def _job_of(answer: Answer, *, looked: bool, secret: str) -> dict[str, Any]:
    # A proxy may echo the call that it refuses; an error page must not fill the caller's logs.
    shown = answer.body.replace(secret, "***")[:2_000]
    if answer.status == 404 and looked:
        # RunPod keeps the result of a /runsync job for a minute only: one that is gone is sent again.
        raise Fault(502, "RunPod lost the job", job_gone=True)
    if answer.status != 200:
        raise Fault(
            answer.status, f"{answer.status} {shown}", retry_after=answer.headers.get("retry-after", "")
        )
    try:
        job = json.loads(answer.body)
    except ValueError:
        job = None
    if not isinstance(job, dict) or not isinstance(job.get("status"), str):
        raise Fault(502, f"not a RunPod job: {shown}")
    if job["status"] in ("FAILED", "CANCELLED", "TIMED_OUT"):
        raise _job_fault(job, secret)
    if job["status"] == "COMPLETED":
        # A handler whose answer RunPod could not read looks like this.
        if not isinstance(job.get("output"), dict):
            raise Fault(502, "the job completed without an HTTP response", job_gone=True)
        return {"output": job["output"]}
    if not looked and not isinstance(job.get("id"), str):
        raise Fault(502, "an unfinished job without an id")
    return {"id": job["id"]} if "id" in job else {}


def _job_fault(job: Mapping[str, Any], secret: str) -> Fault:
    """`error` is normally the handler's JSON; whatever else it is counts as the service's fault."""
    error = job.get("error")
    text = (error if isinstance(error, str) else json.dumps(error)).replace(secret, "***")[:2_000]
    try:
        status = json.loads(text)["status_code"]
    except (ValueError, KeyError, TypeError):
        status = 500
    return Fault(status, f"{status} {text}", job_gone=True)


def _answer_of(output: Mapping[str, Any]) -> Answer:
    try:
        return Answer(int(output["status_code"]), dict(output["headers"]), str(output["body"]))
    except (KeyError, TypeError, ValueError):
        raise Fault(502, "the job completed without an HTTP response", job_gone=True) from None


def _answer_of_fault(fault: Fault) -> Answer:
    # An endpoint that RunPod does not know says nothing about any batch, and neither does what is no error at all.
    status = 502 if fault.status == 404 or fault.status < 400 else fault.status
    answer = _error(status, f"Failed to call the service: {fault}")
    headers = {"x-should-retry": "false", **({"retry-after": fault.retry_after} if fault.retry_after else {})}
    return replace(answer, headers={**answer.headers, **headers})


def _error(status: int, message: str) -> Answer:
    """An error in Anthropic's shape."""
    kind = ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}})
    return Answer(status, {"content-type": "application/json"}, body)


def _seconds(retry_after: str) -> float:
    """A Retry-After header, in seconds or as a date; 0 if absent or unreadable."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


# ---- creates -----------------------------------------------------------------------------------------------------


class CreateKeys:
    """Idempotency keys of creates that have failed, each to be used by one retry of the same content.

    The SDK sends a failed create again as a new request, told apart by a retry count alone: under another key one
    create would make two batches.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        # Oldest first: (fingerprint, key, until).
        self._kept: list[tuple[str, str, float]] = []

    def keep(self, fingerprint: str, key: str) -> None:
        with self._lock:
            self._kept.append((fingerprint, key, self._now() + KEY_KEPT_S))
            self._kept = [kept for kept in self._kept[-KEYS_KEPT:] if kept[2] > self._now()]

    def take(self, fingerprint: str) -> str | None:
        """The key of the last failed create of this content that no retry has taken."""
        with self._lock:
            for index in range(len(self._kept) - 1, -1, -1):
                kept, key, until = self._kept[index]
                if kept == fingerprint and until > self._now():
                    del self._kept[index]
                    return key
        return None


class Create:
    """A create under its idempotency key: `small`, or in parts, whose flows `uploads` gives to any number of workers.

    Parts are named after the key, so what is sent again changes nothing.
    """

    def __init__(self, service: Service, request: Request, key: str) -> None:
        self._service = service
        self._request = replace(request, headers={**request.headers, "idempotency-key": key})
        # Any text may be an idempotency key; this stands in a path.
        self._upload = hashlib.sha256(key.encode()).hexdigest()
        self._place = find_requests(request.body) if len(request.body) > PART_MAX_BYTES else None
        self._parts = self._cut()
        self._array_end = 0
        self._count = 0
        self._lock = threading.Lock()
        self._refusal: Answer | None = None
        self.stopped = self._place is None

    def uploads(self) -> Iterator[Flow]:
        """Flows of parts that nobody else sends, until there are none, one was refused or somebody met a fault."""
        while not self.stopped:
            with self._lock:
                part = next(self._parts, None)
            if part is None:
                return
            yield self._send(*part)

    def finish(self) -> Flow:
        """The create itself, when all uploads are done."""
        if self._refusal:
            return self._refusal
        if self._place is None:
            return (yield from self._service.call(self._request))
        if not self._array_end:
            return _error(400, "The body is not JSON: its requests have no end")
        reference = json.dumps({"key": self._upload, "parts": self._count}).encode()
        body = self._request.body
        body = b"".join((body[: self._place[0]], b'"upload":', reference, body[self._array_end :]))
        return (yield from self._service.call(replace(self._request, body=body)))

    def _cut(self) -> Iterator[tuple[int, int, bytes]]:
        if self._place is None:
            return
        parts = parts_of(self._request.body, self._place[1], PART_MAX_BYTES)
        while True:
            try:
                first, body = next(parts)
            except StopIteration as stop:
                self._array_end = stop.value
                return
            yield self._count, first, body
            self._count += 1

    def _send(self, number: int, first: int, body: bytes) -> Flow:
        path = f"{BATCHES}/uploads/{self._upload}/{number}"
        part = replace(self._request, method="PUT", path=path, body=body)
        answer = yield from self._service.call_patiently(part)
        if answer.status >= 300:
            self.stopped = True
            self._refusal = self._refusal or _renumbered(answer, first)
        return answer


def _renumbered(answer: Answer, first: int) -> Answer:
    """A part's refusal with its requests numbered as in the whole batch."""
    body = re.sub(r"\brequests\[(\d+)\]", lambda m: f"requests[{first + int(m[1])}]", answer.body)
    return replace(answer, body=body)


# A batch may have 256 MB, and as objects many times that: its text is scanned, never parsed.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
_ARRAY = re.compile(rb"\s*:\s*\[")


def find_requests(body: bytes) -> tuple[int, int] | None:
    """Where the top-level key "requests" and the bracket of its array stand."""
    depth = 0
    for token in _TOKEN.finditer(body):
        kind = body[token.start()]
        if kind in b"[{":
            depth += 1
        elif kind in b"]}":
            depth -= 1
        elif depth == 1 and token[0] == b'"requests"':
            array = _ARRAY.match(body, token.end())
            if array:
                return token.start(), array.end() - 1
    return None


def parts_of(body: bytes, array_at: int, max_bytes: int) -> Generator[tuple[int, bytes], None, int]:
    """The parts as (index of the first request, body), each of at most `max_bytes` unless a single request is larger.

    Returns where the array ends, 0 if it has no end.
    """
    start = end = array_at + 1
    first = count = depth = 0
    for token in _TOKEN.finditer(body, start):
        at = token.start()
        kind = body[at]
        if kind in b"[{":
            depth += 1
        elif depth and kind in b"]}":
            depth -= 1
        elif not depth and kind in b",]":
            if end > start and at - start > max_bytes:
                yield first, b'{"requests":[%b]}' % body[start:end]
                start, first = end + 1, count
            end = at
            count += 1
            if kind == ord("]"):
                if body[start:end].strip():
                    yield first, b'{"requests":[%b]}' % body[start:end]
                return at + 1
    return 0


# ---- the transports ----------------------------------------------------------------------------------------------


class _Transport:
    """What both have in common. `httpx` is the module httpx or httpx2."""

    def __init__(self, httpx: Any, options: Options) -> None:
        self._httpx = httpx
        self._options = options
        self._service = Service(options, httpx.TransportError, httpx.ReadTimeout)
        self._keys = CreateKeys(options.now)

    def _request_of(self, request: Any, body: bytes) -> Request:
        url = request.url
        # As it was sent: an id with a slash in it stays one segment.
        path = url.raw_path.split(b"?")[0].decode("ascii")
        headers = {name: value for name, value in request.headers.items() if FORWARDED.fullmatch(name)}
        host = url.host if url.port is None else f"{url.host}:{url.port}"
        read_s = (request.extensions.get("timeout") or {}).get("read")
        limit_s = self._options.operation_timeout_s
        return Request(
            method=request.method,
            # The client's base URL may have a path of its own.
            path=path[max(0, path.rfind("/v1/")) :],
            query=dict(url.params),
            headers={**headers, "host": host, "x-forwarded-proto": url.scheme},
            body=body,
            timeout_s=limit_s if read_s is None else min(limit_s, read_s),
        )

    def _outgoing(self, call: Call) -> Any:
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), call.timeout_s)
        return self._httpx.Request(
            call.method,
            call.url,
            headers=call.headers,
            content=call.content,
            extensions={"timeout": timeout},
        )

    def _response(self, answer: Answer, content: Any) -> Any:
        headers = {name: value for name, value in answer.headers.items() if name != NEXT_PAGE}
        return self._httpx.Response(answer.status, headers=headers, content=content)

    def _next_page(self, request: Request, page: Answer) -> Request | None:
        token = page.headers.get(NEXT_PAGE)
        if token is None:
            return None
        if request.query.get("page") == token:
            # A token that stands still would never end.
            raise self._httpx.RemoteProtocolError(f"page {token} names itself as the next one")
        return replace(request, query={**request.query, "page": token})

    def _page(self, answer: Answer) -> Answer:
        if answer.status != 200:
            raise self._httpx.RemoteProtocolError(
                f"a page of results failed: {answer.status} {answer.body[:2_000]}"
            )
        return answer

    def _begin_create(
        self, request: Request, is_retry: bool
    ) -> tuple[Create, Callable[[Answer | None], None]]:
        """The create, and what to tell its outcome."""
        head = json.dumps(sorted(request.headers.items())).encode()
        fingerprint = hashlib.sha256(head + hashlib.sha256(request.body).digest()).hexdigest()
        key = request.headers.get("idempotency-key") or (self._keys.take(fingerprint) if is_retry else None)
        key = key or str(uuid.uuid4())

        def end(answer: Answer | None) -> None:
            if answer is None or answer.status >= 300:
                self._keys.keep(fingerprint, key)

        return Create(self._service, request, key), end


def _is_create(request: Request) -> bool:
    return request.method == "POST" and request.path == BATCHES


def _is_retry(request: Any) -> bool:
    return int(request.headers.get("x-stainless-retry-count") or 0) > 0


class RunPodTransport(_Transport):
    """A transport for httpx.Client or httpx2.Client."""

    def __init__(
        self,
        httpx: Any,
        options: Options,
        *,
        transport: Any = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(httpx, options)
        self._inner = transport or httpx.HTTPTransport()
        self._sleep = sleep

    def handle_request(self, request: Any) -> Any:
        asked = self._request_of(request, request.read())
        create = self._create(asked, _is_retry(request)) if _is_create(asked) else None
        answer = create or self._run(self._service.call(asked))
        content = self._pages(asked, answer) if NEXT_PAGE in answer.headers else answer.body.encode()
        return self._response(answer, content)

    def _create(self, request: Request, is_retry: bool) -> Answer:
        create, end = self._begin_create(request, is_retry)
        answer = None
        try:
            if not create.stopped:
                with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
                    try:
                        for sent in [pool.submit(self._upload, create) for _ in range(PARTS_AT_ONCE)]:
                            sent.result()
                    finally:
                        # The pool waits for its threads: after Ctrl-C only for the calls on the way.
                        create.stopped = True
            answer = self._run(create.finish())
        finally:
            end(answer)
        return answer

    def _upload(self, create: Create) -> None:
        try:
            for flow in create.uploads():
                self._run(flow)
        except BaseException:
            create.stopped = True
            raise

    def _pages(self, request: Request, page: Answer) -> Iterator[bytes]:
        """The first page and all that follow: each is fetched when the one before has been read."""
        yield page.body.encode()
        while (following := self._next_page(request, page)) is not None:
            request = following
            page = self._page(self._run(self._service.call_patiently(request)))
            yield page.body.encode()

    def _run(self, flow: Flow) -> Answer:
        resume = partial(flow.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as stop:
                return cast("Answer", stop.value)
            try:
                resume = partial(flow.send, self._do(step))
            except self._httpx.TransportError as error:
                resume = partial(flow.throw, error)

    def _do(self, step: Call | Pause) -> Answer | None:
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return None
        response = self._inner.handle_request(self._outgoing(step))
        try:
            response.read()
        finally:
            response.close()
        return Answer(response.status_code, dict(response.headers), response.text)

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> RunPodTransport:
        self._inner.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._inner.__exit__(*exc_info)


class AsyncRunPodTransport(_Transport):
    """The same for httpx.AsyncClient or httpx2.AsyncClient, under asyncio or trio."""

    def __init__(
        self,
        httpx: Any,
        options: Options,
        *,
        transport: Any = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        super().__init__(httpx, options)
        self._inner = transport or httpx.AsyncHTTPTransport()
        self._sleep = sleep

    async def handle_async_request(self, request: Any) -> Any:
        asked = self._request_of(request, await request.aread())
        create = await self._create(asked, _is_retry(request)) if _is_create(asked) else None
        answer = create or await self._run(self._service.call(asked))
        content = self._pages(asked, answer) if NEXT_PAGE in answer.headers else answer.body.encode()
        return self._response(answer, content)

    async def _create(self, request: Request, is_retry: bool) -> Answer:
        create, end = self._begin_create(request, is_retry)
        answer = None
        try:
            errors: list[Exception] = []
            if not create.stopped:
                async with anyio.create_task_group() as workers:
                    for _ in range(PARTS_AT_ONCE):
                        workers.start_soon(self._upload, create, errors)
            if errors:
                raise errors[0]
            answer = await self._run(create.finish())
        finally:
            end(answer)
        return answer

    async def _upload(self, create: Create, errors: list[Exception]) -> None:
        # Kept, not raised: a task group would wrap it, and the SDK looks at the class.
        try:
            for flow in create.uploads():
                await self._run(flow)
        except Exception as error:  # noqa: BLE001 - kept, not lost
            create.stopped = True
            errors.append(error)

    async def _pages(self, request: Request, page: Answer) -> AsyncIterator[bytes]:
        yield page.body.encode()
        while (following := self._next_page(request, page)) is not None:
            request = following
            page = self._page(await self._run(self._service.call_patiently(request)))
            yield page.body.encode()

    async def _run(self, flow: Flow) -> Answer:
        resume = partial(flow.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as stop:
                return cast("Answer", stop.value)
            try:
                resume = partial(flow.send, await self._do(step))
            except self._httpx.TransportError as error:
                resume = partial(flow.throw, error)

    async def _do(self, step: Call | Pause) -> Answer | None:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return None
        response = await self._inner.handle_async_request(self._outgoing(step))
        try:
            await response.aread()
        finally:
            await response.aclose()
        return Answer(response.status_code, dict(response.headers), response.text)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> AsyncRunPodTransport:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._inner.__aexit__(*exc_info)
