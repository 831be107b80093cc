"""Callbacks: the event at a batch's end, its signature, and what follows from each attempt to deliver it.

The convention is Standard Webhooks (https://www.standardwebhooks.com): an id that stays, the time of the attempt, and
an HMAC-SHA256 over both and the body.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.core.addresses import url_fault
from shared.core.retry import Rng
from shared.core.shards import BatchRecord
from shared.core.views import status_view
from shared.errors import InvalidRequest

SECRET_PREFIX = "whsec_"  # noqa: S105  what a secret begins with
SECRET_MIN_BYTES, SECRET_MAX_BYTES = 24, 64
# The waits after the first attempt, the second, ...: more than a day in all.
RETRIES_AFTER_S = (5, 300, 1800, 7200, 18_000, 36_000, 36_000)
JITTER = 0.1
EVENT_FIELDS = ("id", "processing_status", "counts", "created_at", "ended_at")


@dataclass(frozen=True)
class CallbackRules:
    """What a create may ask for. `enabled`: this deployment has a secret to sign with."""

    enabled: bool = False
    allow_private: bool = False

    def check(self, url: str | None) -> None:
        """Raises InvalidRequest, which does not repeat the URL: it may hold a token."""
        if url is None:
            return
        fault = url_fault(url, allow_private=self.allow_private)
        if not self.enabled:
            fault = "needs the setting CALLBACK_SECRET, which this deployment lacks"
        if fault:
            raise InvalidRequest(f"callback_url: {fault}", param="callback_url")


@dataclass(frozen=True)
class Attempt:
    """How an attempt went. `fault` is empty where the receiver took the event; `final`: no later one can do better."""

    fault: str = ""
    final: bool = False


@dataclass(frozen=True)
class Noted:
    """What an attempt makes of its callback; `after_ms` until the next one, where it is pending."""

    state: Literal["pending", "delivered", "failed"]
    fault: str = ""
    after_ms: int = 0


def event_id(batch_id: str) -> str:
    """One id for the one event of a batch, whoever sends it and however often."""
    return f"evt_{batch_id.removeprefix('batch_')}"


def event_body(batch: BatchRecord) -> str:
    """The event as JSON text, the same in every attempt. No result is in it."""
    status = status_view(batch)
    data = {name: status[name] for name in EVENT_FIELDS}
    return json.dumps({"type": "batch.ended", "timestamp": status["ended_at"], "data": data})


def read_secrets(text: str) -> list[bytes]:
    """The keys of `whsec_...` texts, one or several between spaces. Raises ValueError for anything else."""
    return [_read_secret(word) for word in text.split()]


def _read_secret(word: str) -> bytes:
    if not word.startswith(SECRET_PREFIX):
        raise ValueError("not a whsec_ text")
    key = b64decode(word.removeprefix(SECRET_PREFIX), validate=True)
    if not SECRET_MIN_BYTES <= len(key) <= SECRET_MAX_BYTES:
        raise ValueError("too short or too long")
    return key


def signed_headers(keys: Sequence[bytes], message_id: str, at_s: int, body: str) -> dict[str, str]:
    """The convention's headers: a signature per key, so that keys can be replaced one side after the other."""
    content = f"{message_id}.{at_s}.{body}".encode()
    signatures = [b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def judge(status_code: int) -> Attempt:
    """What a receiver's status says. A redirect is no answer: it is not followed."""
    if 200 <= status_code < 300:
        return Attempt()
    return Attempt(f"the receiver answered {status_code}", final=status_code == 410)


def after_attempt(number: int, attempt: Attempt, rng: Rng) -> Noted:
    """What follows from attempt `number` (>= 1). `rng` gives 0 <= x < 1."""
    if not attempt.fault:
        return Noted("delivered")
    if attempt.final or number > len(RETRIES_AFTER_S):
        return Noted("failed", attempt.fault)
    wait_s = RETRIES_AFTER_S[number - 1] * (1 + JITTER * rng())
    return Noted("pending", attempt.fault, round(1000 * wait_s))
