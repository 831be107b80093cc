"""Every Redis key of the product, by name. The table in docs/design.md says what each holds."""

from __future__ import annotations

OPEN = "open"
BATCHES = "batches"
SEQ = "seq"
TICK = "tick"
ENDPOINTS = "endpoints"
METRICS_BATCHES = "metrics:batches"
INBOXES = tuple(f"inbox:{number}" for number in range(8))


def batch(batch_id: str) -> str:
    return f"batch:{batch_id}"


def shards(batch_id: str) -> str:
    return f"batch:{batch_id}:shards"


def plan(batch_id: str) -> str:
    return f"batch:{batch_id}:plan"


def upload(key: str) -> str:
    return f"upload:{key}"


def deleted(batch_id: str) -> str:
    return f"deleted:{batch_id}"


def made_by(job: str) -> str:
    return f"made:{job}"


def idempotency(key: str) -> str:
    return f"idem:{key}"


def retry(batch_id: str) -> str:
    """Beside `idempotency`, so that no key of a caller can stand for it."""
    return f"retry:{batch_id}"


def queue(model: str) -> str:
    return f"queue:{model}"


def delayed(model: str) -> str:
    return f"delayed:{model}"


def vtime(model: str) -> str:
    return f"vtime:{model}"


def metrics(model: str) -> str:
    return f"metrics:{model}"


def waiting(endpoint: str) -> str:
    return f"inflight:{endpoint}:waiting"


def running(endpoint: str) -> str:
    return f"inflight:{endpoint}:running"


def rest(endpoint: str) -> str:
    return f"rest:{endpoint}"


def failures(endpoint: str) -> str:
    return f"failures:{endpoint}"


def deaths(endpoint: str) -> str:
    return f"deaths:{endpoint}"


def proof(endpoint: str) -> str:
    return f"proof:{endpoint}"


def capacity(endpoint: str) -> str:
    return f"capacity:{endpoint}"


def claim_nonce(nonce: str) -> str:
    return f"claim:{nonce}"


def lease(batch_id: str, shard: int) -> str:
    return f"{batch_id}:{shard}"


def inbox(batch_id: str) -> str:
    """The inbox that a batch's webhooks go to: any of them would do, this spreads them."""
    return INBOXES[int(batch_id[-1], 16) % len(INBOXES)]
