"""HTTP for the deploy tool: bounded in time, retried here alone and only where sending again is harmless."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from failures import PlatformError

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
ATTEMPTS = 4
PAUSE_S = 1.0
# Nobody at a terminal waits longer for one answer.
PAUSE_CAP_S = 30.0

Pause = Callable[[float], None]


class Http:
    """One client for one platform. `pause` waits so many seconds; tests replace it."""

    def __init__(self, platform: str, base_url: str, token: str, pause: Pause = time.sleep) -> None:
        self._platform = platform
        self._client = httpx.Client(
            base_url=base_url, timeout=TIMEOUT, headers={"Authorization": f"Bearer {token}"}
        )
        self.pause = pause

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        attempts: int = ATTEMPTS,
        only_refused: bool = False,
    ) -> httpx.Response:
        """The answer, if it is a 2xx. Raises PlatformError after `attempts`, or at once for another 4xx.

        `only_refused`: send again after a 429 alone, which says that nothing was done.
        """
        for attempt in range(1, attempts + 1):
            try:
                answer = self._client.request(method, path, json=body, headers=headers)
            except httpx.HTTPError as error:
                failure = PlatformError(f"{self._platform} did not answer {method}: {type(error).__name__}")
                wait_s = PAUSE_S * 2 ** (attempt - 1)
            else:
                if answer.is_success:
                    return answer
                failure = PlatformError(self._refusal(method, answer), answer.status_code)
                wait_s = _wish_s(answer) or PAUSE_S * 2 ** (attempt - 1)
            harmless = failure.status == 429 or (failure.outcome_unknown and not only_refused)
            if attempt == attempts or not harmless:
                raise failure
            self.pause(min(wait_s, PAUSE_CAP_S))
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._client.close()

    def _refusal(self, method: str, answer: httpx.Response) -> str:
        return f"{self._platform} answered {method} with {answer.status_code}: {problem_text(answer)}"


def problem_text(answer: httpx.Response) -> str:
    """An error's text in one line: RFC 9457's fields, Upstash's `error`, or the start of whatever came (an edge may
    answer HTML)."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return " ".join(answer.text[:200].split()) or "no text"
    parts = [body.get("title"), body.get("detail"), body.get("error"), *(body.get("errors") or [])]
    return "; ".join(" ".join(str(part).split()) for part in parts if part) or "no text"


def json_object(answer: httpx.Response, platform: str) -> dict[str, Any]:
    """The JSON object of a 2xx answer. Raises PlatformError for anything else."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise PlatformError(f"{platform} answered with something that is not a JSON object")
    return body


def _wish_s(answer: httpx.Response) -> float:
    """Retry-After in seconds; 0 without one."""
    text = answer.headers.get("retry-after", "").strip()
    return float(text) if text.isdecimal() else 0.0
