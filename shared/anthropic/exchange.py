"""One HTTP request and its response, as the operation `http` carries them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NoReturn
from urllib.parse import unquote

from pydantic import Field

from shared.core.requests import CALL_MAX_BYTES, Wire, parse
from shared.errors import InvalidRequest, TooLarge

# What RunPod takes in one call.
BODY_MAX_BYTES = 20 * 1024 * 1024
DEFAULT_HOST = "api.anthropic.com"


class HttpInput(Wire):
    operation: Literal["http"]
    method: Annotated[str, Field(min_length=1, max_length=16)]
    path: Annotated[str, Field(min_length=1, max_length=2048)]
    query: dict[str, str] | None = None
    headers: dict[str, str] | None = None
    body: str | None = None


@dataclass(frozen=True)
class HttpRequest:
    """`path` is in parts, decoded; `headers` are by their names in lower case. `id` names the request in answers and
    logs: that of the RunPod job that brought it."""

    id: str
    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: str

    @classmethod
    def parse(cls, payload: Mapping[str, Any], job: str | None) -> HttpRequest:
        """Raises InvalidRequest where the envelope is none, TooLarge."""
        asked = parse(HttpInput, dict(payload), BODY_MAX_BYTES + CALL_MAX_BYTES)
        path = asked.path.partition("?")[0].strip("/")
        headers = {name.lower(): value for name, value in (asked.headers or {}).items()}
        parts = tuple(unquote(part) for part in path.split("/"))
        id_ = job or f"req_{secrets.token_hex(12)}"
        return cls(id_, asked.method.upper(), parts, asked.query or {}, headers, asked.body or "")

    def json(self) -> dict[str, Any]:
        """The body's JSON object. Raises InvalidRequest, TooLarge."""
        if len(self.body) > BODY_MAX_BYTES:
            raise TooLarge(f"body: at most {BODY_MAX_BYTES} bytes in a call; upload more in parts")
        try:
            value = json.loads(self.body, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise InvalidRequest("body: must be valid JSON", param="body") from None
        if not isinstance(value, dict):
            raise InvalidRequest("body: must be a JSON object", param="body")
        return value

    def header(self, name: str) -> str | None:
        return self.headers.get(name) or None

    @staticmethod
    def number(name: str, values: Mapping[str, str]) -> int | None:
        """A whole number among `values`, None where it is not given. Raises InvalidRequest."""
        text = values.get(name)
        if not text:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise InvalidRequest(f"{name}: must be a whole number", param=name)
        return int(text)

    @property
    def origin(self) -> str:
        """Where the caller's SDK believes to be: an address that it is given must lead back through its transport."""
        scheme = self.headers.get("x-forwarded-proto", "https")
        return f"{scheme}://{self.headers.get('host', DEFAULT_HOST)}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


@dataclass(frozen=True)
class HttpResponse:
    body: str
    status_code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, view: Mapping[str, Any], status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        body = json.dumps(view, ensure_ascii=False)
        return cls(body, status_code, {"content-type": "application/json", **(headers or {})})
