"""The client of RunPod's REST API against a server that answers as RunPod and its edge do."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from shared.adapters import runpod_api
from shared.adapters.runpod_api import RunpodApi
from shared.core.repair import JobState
from shared.errors import EndpointTimeout, EndpointUnavailable, EngineDead, StateUnavailable
from shared.ports.jobs import JobAnswer, JobPolicy
from shared.ports.state import Endpoint
from tests.contract.misbehaving import BAD_GATEWAY, SILENCE, Answer, Misbehaving
from tests.flow.cloud import eventually

API_KEY = "rpa_SECRET"
WEBHOOK = "https://db.example/rpush/inbox:1?_token=WEBHOOKSECRET"
POLICY = JobPolicy(execution_timeout_ms=600_000, ttl_ms=86_400_000)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Misbehaving]:
    async with Misbehaving().serving() as running:
        yield running


@pytest_asyncio.fixture
async def api() -> AsyncIterator[RunpodApi]:
    client = RunpodApi(SecretStr(API_KEY))
    yield client
    await client.close()


@pytest.fixture
def endpoint(server: Misbehaving) -> Endpoint:
    return Endpoint(id="ep1", url=f"{server.url}/v2/ep1", model="mistral")


def impatient(api: RunpodApi) -> None:
    api._client.timeout = httpx.Timeout(20, read=0.3)


async def run(api: RunpodApi, endpoint: Endpoint) -> str:
    return await api.run(endpoint, {"batch": "b"}, WEBHOOK, POLICY)


class TestRun:
    async def test_a_job_is_posted_with_its_limits_and_gives_its_id(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        server.answers.append(Answer(text='{"id": "abc-u1", "status": "IN_QUEUE"}'))
        assert await run(api, endpoint) == "abc-u1"
        [call] = server.calls
        assert (call.method, call.path, call.authorization) == ("POST", "/v2/ep1/run", f"Bearer {API_KEY}")
        assert json.loads(call.body) == {
            "input": {"batch": "b"},
            "webhook": WEBHOOK,
            "policy": {"executionTimeout": 600_000, "ttl": 86_400_000},
        }

    async def test_no_webhook_is_asked_for_where_there_is_none(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        server.answers.append(Answer(text='{"id": "abc"}'))
        await api.run(endpoint, {"batch": "b"}, None, POLICY)
        assert "webhook" not in json.loads(server.calls[0].body)

    @pytest.mark.parametrize(
        "refusal",
        [
            BAD_GATEWAY,
            Answer(404, '{"error": "not found"}'),
            Answer(401, ""),
            Answer(500, "oops", "text/plain"),
            Answer(524, "<html>A timeout occurred</html>", "text/html"),
            Answer(200, "<html>welcome</html>", "text/html"),
            Answer(200, '{"status": "IN_QUEUE"}'),
            Answer(200, '{"id": ""}'),
            Answer(200, '{"id": 7}'),
            Answer(200, "[]"),
            Answer(200, "null"),
        ],
        ids=lambda refusal: f"{refusal.status}-{refusal.text[:12]}",
    )
    async def test_whatever_is_no_job_id_is_one_typed_error(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint, refusal: Answer
    ) -> None:
        server.answers.append(refusal)
        with pytest.raises(EndpointUnavailable) as caught:
            await run(api, endpoint)
        assert len(server.calls) == 1
        check_message(caught.value)

    async def test_silence_is_a_typed_error(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        server.answers.append(SILENCE)
        impatient(api)
        with pytest.raises(EndpointUnavailable, match="ReadTimeout") as caught:
            await run(api, endpoint)
        check_message(caught.value)

    async def test_nobody_listening_is_a_typed_error(self, api: RunpodApi) -> None:
        with pytest.raises(EndpointUnavailable) as caught:
            await run(api, Endpoint("ep1", "http://127.0.0.1:9/v2/ep1", "mistral"))
        check_message(caught.value)


class TestRetryAfter:
    async def refused_with(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint, header: str | None
    ) -> float | None:
        headers = {} if header is None else {"Retry-After": header}
        server.answers.append(Answer(429, "<html>Too Many Requests</html>", "text/html", headers))
        with pytest.raises(EndpointUnavailable) as caught:
            await run(api, endpoint)
        return caught.value.retry_after_s

    @pytest.mark.parametrize(
        ("header", "wait_s"),
        [("7", 7.0), (" 0 ", 0.0), (None, None), ("soon", None), ("-5", None), ("9" * 400, 3600.0)],
    )
    async def test_a_number_is_seconds(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint, header: str, wait_s: float | None
    ) -> None:
        assert await self.refused_with(api, server, endpoint, header) == wait_s

    async def test_a_date_is_the_seconds_until_then(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        then = datetime.now(timezone.utc) + timedelta(seconds=30)
        wait_s = await self.refused_with(api, server, endpoint, format_datetime(then, usegmt=True))
        assert wait_s is not None
        assert 25 < wait_s <= 30

    async def test_a_date_gone_by_is_now(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        wait_s = await self.refused_with(api, server, endpoint, "Wed, 21 Oct 2015 07:28:00 GMT")
        assert wait_s == 0.0


class TestStatus:
    @pytest.mark.parametrize(
        ("said", "state"),
        [
            ("IN_QUEUE", JobState.QUEUED),
            ("IN_PROGRESS", JobState.RUNNING),
            ("RUNNING", JobState.RUNNING),
            ("COMPLETED", JobState.COMPLETED),
            ("FAILED", JobState.FAILED),
            ("CANCELLED", JobState.FAILED),
            ("TIMED_OUT", JobState.FAILED),
            ("SOMETHING_NEW", JobState.UNKNOWN),
        ],
    )
    async def test_runpods_words_are_ours(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint, said: str, state: JobState
    ) -> None:
        server.answers.append(Answer(text=json.dumps({"id": "j", "status": said})))
        assert await api.status(endpoint, "j") is state
        assert (server.calls[0].method, server.calls[0].path) == ("GET", "/v2/ep1/status/j")

    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (StateUnavailable("Redis is away").to_body("j"), JobState.GAVE_UP),
            (EngineDead("the engine died").to_body("j"), JobState.FAILED),
            ("job timed out after 1 retries", JobState.FAILED),
            ('{"error": 7}', JobState.FAILED),
            (None, JobState.FAILED),
        ],
    )
    async def test_a_worker_that_could_not_reach_a_platform_says_so(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint, error: str | None, state: JobState
    ) -> None:
        server.answers.append(Answer(text=json.dumps({"id": "j", "status": "FAILED", "error": error})))
        assert await api.status(endpoint, "j") is state

    @pytest.mark.parametrize(
        ("answer", "state"),
        [
            (Answer(404, "job not found", "text/plain"), JobState.GONE),
            (BAD_GATEWAY, JobState.UNKNOWN),
            (Answer(429, ""), JobState.UNKNOWN),
            (Answer(401, ""), JobState.UNKNOWN),
            (Answer(200, "<html>", "text/html"), JobState.UNKNOWN),
            (Answer(200, "[]"), JobState.UNKNOWN),
            (Answer(200, "{}"), JobState.UNKNOWN),
        ],
        ids=lambda value: f"{value.status}-{value.text[:6]}" if isinstance(value, Answer) else value.value,
    )
    async def test_only_a_404_says_that_a_job_is_gone(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint, answer: Answer, state: JobState
    ) -> None:
        server.answers.append(answer)
        assert await api.status(endpoint, "j") is state

    async def test_silence_says_nothing(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        server.answers.append(SILENCE)
        impatient(api)
        assert await api.status(endpoint, "j") is JobState.UNKNOWN


class TestCancelAndHealth:
    async def test_a_cancel_is_posted_and_never_raises(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        server.answers.extend([Answer(404, "gone"), BAD_GATEWAY, SILENCE])
        impatient(api)
        for _ in range(3):
            await api.cancel(endpoint, "j")
        assert [(call.method, call.path) for call in server.calls] == [("POST", "/v2/ep1/cancel/j")] * 3

    async def test_health_is_runpods_own_object(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        said = {"jobs": {"inQueue": 2}, "workers": {"idle": 1}}
        server.answers.append(Answer(text=json.dumps(said)))
        assert await api.health(endpoint) == said

    async def test_an_unhealthy_answer_is_a_typed_error(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        server.answers.append(BAD_GATEWAY)
        with pytest.raises(EndpointUnavailable) as caught:
            await api.health(endpoint)
        check_message(caught.value)


def check_message(error: EndpointUnavailable) -> None:
    """Short, names the endpoint, and gives nothing away: neither in itself nor through its cause."""
    assert error.message.startswith("ep1 ")
    assert len(error.message) < 120
    assert error.__cause__ is None
    assert "SECRET" not in error.to_body()


class TestAsk:
    """A call that waits: held by /runsync, then looked for until it ended."""

    @pytest.fixture(autouse=True)
    def hasty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runpod_api, "POLL_S", 0.0)

    def says(self, server: Misbehaving, *bodies: str) -> None:
        server.answers += [Answer(text=body) for body in bodies]

    async def test_a_job_that_ends_while_it_is_held_is_answered_at_once(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        self.says(server, '{"id": "sync-1", "status": "COMPLETED", "output": [{"a": 1}]}')
        assert await api.ask(endpoint, {"message": {}}, 600) == JobAnswer(output=[{"a": 1}])
        [call] = server.calls
        assert (call.method, call.path) == ("POST", "/v2/ep1/runsync?wait=60000")
        assert call.authorization == f"Bearer {API_KEY}"
        assert json.loads(call.body) == {
            "input": {"message": {}},
            "policy": {"executionTimeout": 600_000, "ttl": 600_000},
        }

    async def test_a_job_that_goes_on_is_looked_for_until_it_ends(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        self.says(server, '{"id": "sync-1", "status": "IN_QUEUE"}', '{"status": "IN_PROGRESS"}')
        lie = '{"status": "COMPLETED", "output": "of the edge"}'
        server.answers += [BAD_GATEWAY, Answer(200, "<html>", "text/html"), Answer(429, lie)]
        self.says(server, '{"status": "FAILED", "error": "it failed"}')
        assert await api.ask(endpoint, {"message": {}}, 600) == JobAnswer(error="it failed")
        assert [call.path for call in server.calls[1:]] == ["/v2/ep1/status/sync-1"] * 5

    @pytest.mark.parametrize("status", ["FAILED", "CANCELLED"])
    async def test_an_end_without_words_is_an_error_all_the_same(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint, status: str
    ) -> None:
        self.says(server, json.dumps({"id": "sync-1", "status": status}))
        assert await api.ask(endpoint, {"message": {}}, 600) == JobAnswer(error=status)

    @pytest.mark.parametrize(
        "refusal",
        [BAD_GATEWAY, Answer(524), Answer(429, "", headers={"Retry-After": "3"}), Answer(200, "[]"), Answer(200, "{}")],
        ids=["502", "524", "429", "list", "no id"],
    )  # fmt: skip
    async def test_whatever_is_no_job_is_one_typed_error_and_not_sent_again(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint, refusal: Answer
    ) -> None:
        server.answers.append(refusal)
        with pytest.raises(EndpointUnavailable) as caught:
            await api.ask(endpoint, {"message": {}}, 600)
        assert len(server.calls) == 1
        check_message(caught.value)
        assert caught.value.retry_after_s == (3.0 if refusal.status == 429 else None)

    async def test_a_job_that_runpod_forgot_is_lost(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        self.says(server, '{"id": "sync-1", "status": "IN_QUEUE"}')
        server.answers.append(Answer(404))
        with pytest.raises(EndpointUnavailable, match="lost the job"):
            await api.ask(endpoint, {"message": {}}, 600)

    async def test_a_job_that_nobody_waits_for_any_more_is_cancelled(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        self.says(server, '{"id": "sync-1", "status": "IN_QUEUE"}')
        with pytest.raises(EndpointTimeout, match="within 0 s"):
            await api.ask(endpoint, {"message": {}}, 0)
        assert (server.calls[-1].method, server.calls[-1].path) == ("POST", "/v2/ep1/cancel/sync-1")

    async def test_a_caller_that_goes_away_takes_the_job_along(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        self.says(server, '{"id": "sync-1", "status": "IN_QUEUE"}')
        server.answers.append(SILENCE)
        asking = asyncio.create_task(api.ask(endpoint, {"message": {}}, 600))

        async def looked() -> bool:
            return len(server.calls) > 1

        await eventually(looked, "the job is looked for")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert server.calls[-1].path == "/v2/ep1/cancel/sync-1"

    async def test_a_job_that_runpod_ended_for_its_time_is_a_timeout(
        self, api: RunpodApi, server: Misbehaving, endpoint: Endpoint
    ) -> None:
        self.says(server, '{"id": "sync-1", "status": "TIMED_OUT"}')
        with pytest.raises(EndpointTimeout):
            await api.ask(endpoint, {"message": {}}, 600)
