"""What the probes of `--verify-platform` work with: the user's endpoints, Redis and storage, and all they made there.

Nothing of production is touched: jobs of our own, keys under `verify:`, and an inbox that nothing drains.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from shared.adapters.s3 import S3
from shared.config import S3Config
from tests.smoke.endpoint import FINAL, Answer, Endpoint, Json, NoAnswer, http_client, read_answer
from tests.smoke.settings import Settings, VerifySection

T = TypeVar("T")

OWN_KEY_S = 120
# A webhook is tried for about 20 s: one that comes later than we look must find the list, or it would make one that
# nothing ever removes.
INBOX_LEFT_S = 60
MARKER = "made by verify-platform"


@dataclass(frozen=True)
class Redis:
    """Upstash's REST protocol, spelled out: the probes are about it, so no client stands between."""

    client: httpx.AsyncClient
    url: str
    token: str

    async def post(
        self,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; `token` "" sends none. Raises NoAnswer."""
        token = self.token if token is None else token
        headers = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        content = raw if raw is not None else json.dumps(body).encode()
        try:
            return read_answer(await self.client.post(self.url + path, content=content, headers=headers))
        except httpx.HTTPError as error:
            raise NoAnswer(f"Redis: {type(error).__name__}") from None

    async def command(self, *command: object) -> Any:
        """One command with all rights; its result. Raises NoAnswer where it is refused."""
        answer = await self.post("/", [str(part) for part in command])
        if answer.status_code != 200 or "result" not in answer.fields:
            raise NoAnswer(f"Redis refused {command[0]}: {answer}")
        return answer.fields["result"]


@dataclass
class Platform:
    """`batch` is always there; the others where their variables are (a fact says which it needs)."""

    settings: Settings
    client: httpx.AsyncClient
    run_id: str = field(default_factory=lambda: secrets.token_hex(6))
    _jobs: list[tuple[Endpoint, str]] = field(default_factory=list)
    _keys: set[str] = field(default_factory=set)
    _inbox_token: str = ""

    @property
    def wanted(self) -> VerifySection:
        return self.settings.file.verify

    @property
    def batch(self) -> Endpoint:
        return Endpoint(self.client, self.settings.batch_url, self.settings.api_key)

    @property
    def mistral(self) -> Endpoint:
        return Endpoint(self.client, self.settings.model_urls["mistral"], self.settings.api_key)

    @property
    def redis(self) -> Redis:
        variables = self.settings.variables
        url, token = variables["UPSTASH_REDIS_REST_URL"], variables["UPSTASH_REDIS_REST_TOKEN"]
        return Redis(self.client, url, token)

    @property
    def webhook_token(self) -> str:
        return self.settings.variables["WEBHOOK_TOKEN"]

    @property
    def inbox(self) -> str:
        return f"inbox:verify-{self.run_id}"

    @property
    def webhook(self) -> str:
        """As the service itself writes it, with a token for this run's inbox."""
        return f"{self.redis.url}/rpush/{self.inbox}?_token={self._inbox_token}"

    def storage(self) -> S3:
        """The service's own adapter."""
        given = self.settings.variables
        secret = SecretStr(given["S3_SECRET_ACCESS_KEY"])
        region = given.get("S3_REGION", "us-east-1")
        return S3(
            S3Config(given["S3_ENDPOINT_URL"], given["S3_BUCKET"], given["S3_ACCESS_KEY_ID"], secret, region)
        )

    def own_key(self) -> str:
        """A Redis key for one probe; it is removed at the end."""
        key = f"verify:{self.run_id}:{len(self._keys)}"
        self._keys.add(key)
        return key

    def note_job(self, endpoint: Endpoint, job: Json) -> None:
        """A job that must not outlive the run."""
        if isinstance(job.get("id"), str):
            self._jobs.append((endpoint, job["id"]))

    async def run(self, endpoint: Endpoint, input: Json, **fields: Any) -> Json:  # noqa: A002 - RunPod's name
        """The answer of /run; the job is cancelled at the end at the latest. Raises NoAnswer where it is refused."""
        answer = await endpoint.send("POST", "run", {"input": input, **fields})
        self.note_job(endpoint, answer.fields)
        if answer.status_code != 200:
            raise NoAnswer(f"/run answered {answer}")
        return answer.fields

    async def run_long(self, policy: Json | None = None, **fields: Any) -> Json:
        return await self.run(self.mistral, **self.long_body(policy), **fields)

    def long_body(self, policy: Json | None = None) -> Json:
        """The body of a job that runs long, but not for ever, should its cancel be lost."""
        limit_ms = round(1000 * self.wanted.limit_s)
        bounds = {"executionTimeout": limit_ms, "ttl": 2 * limit_ms}
        return {"input": self.wanted.long_job, "policy": {**bounds, **(policy or {})}}

    async def until_final(self, endpoint: Endpoint, job: Json) -> Json:
        """The final job object. Raises NoAnswer where it takes too long, or is gone."""
        job_id = job["id"]

        async def look() -> Json | None:
            answer = await endpoint.send("GET", f"status/{job_id}")
            if answer.status_code == 404:
                raise NoAnswer(f"a job that was submitted just now is not known: {answer}")
            return answer.fields if answer.fields.get("status") in FINAL else None

        return await self.poll(look, self.wanted.job_s, "the job did not end")

    async def delivered(self, job: Json) -> Json | None:
        """The webhook's body for a job, as soon as it stands in Redis; None where none comes in time."""

        async def look() -> Json | None:
            for text in await self.redis.command("LRANGE", self.inbox, 0, -1):
                if job["id"] in text:
                    body = json.loads(text)
                    return body if isinstance(body, dict) else {}
            return None

        try:
            return await self.poll(look, self.wanted.webhook_s, "")
        except NoAnswer:
            return None

    async def poll(self, look: Callable[[], Awaitable[T | None]], within_s: float, claim: str) -> T:
        """The first thing that `look` finds. Raises NoAnswer with the claim when the time is over."""
        end_s = monotonic() + within_s
        while True:
            found = await look()
            if found is not None:
                return found
            if monotonic() > end_s:
                raise NoAnswer(f"{claim} within {within_s:g} s")
            await asyncio.sleep(self.wanted.poll_s)

    async def open_inbox(self) -> None:
        """The list exists before any webhook, with an end of its own; the token may append to it and nothing else."""
        user = f"verify-{self.run_id}"
        self._inbox_token = str(await self.redis.command("ACL", "GENTOKEN", user))
        rules = ("reset", "on", f">{self._inbox_token}", f"~{self.inbox}", "+rpush")
        await self.redis.command("ACL", "SETUSER", user, *rules)
        await self.redis.command("RPUSH", self.inbox, MARKER)
        await self.redis.command("EXPIRE", self.inbox, self.wanted.limit_s.__ceil__() + 10 * INBOX_LEFT_S)

    async def clean_up(self) -> list[str]:
        """Cancels every job and removes every key; a line for each that could not be."""
        left = await asyncio.gather(*(self._cancel(endpoint, job) for endpoint, job in self._jobs))
        return [line for line in (*left, await self._remove_keys()) if line]

    async def _cancel(self, endpoint: Endpoint, job: str) -> str | None:
        """A job that has ended already stays as it is."""
        try:
            answer = await endpoint.send("POST", f"cancel/{job}")
        except NoAnswer as reason:
            return f"job {job}: {reason}"
        # Undocumented for jobs that have ended; 404 is as good as cancelled.
        return None if answer.status_code < 500 else f"job {job}: /cancel answered {answer}"

    async def _remove_keys(self) -> str | None:
        if "UPSTASH_REDIS_REST_TOKEN" not in self.settings.variables:
            return None
        try:
            if self._keys:
                await self.redis.command("DEL", *sorted(self._keys))
            await self.redis.command("ACL", "DELUSER", f"verify-{self.run_id}")
            # The bodies hold the inbox's token.
            await self.redis.command("LTRIM", self.inbox, 0, 0)
            await self.redis.command("EXPIRE", self.inbox, INBOX_LEFT_S)
        except NoAnswer as reason:
            return f"keys verify:{self.run_id}:* and {self.inbox}: {reason}"
        return None


@asynccontextmanager
async def open_platform(settings: Settings) -> AsyncIterator[Platform]:
    async with http_client() as client:
        yield Platform(settings, client)
