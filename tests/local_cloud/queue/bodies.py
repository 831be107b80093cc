"""Reading bodies: what a caller submits and what a worker posts, with the platform's size limits."""

import json
from typing import NoReturn

from tests.local_cloud.queue.errors import BadSubmission, BodyTooLarge, OutputRefused
from tests.local_cloud.queue.job import JsonObject, Policy, Submission

# The documentation says "10 MB" and "20 MB": the smaller reading of the two is the safe one to test against.
RUN_BODY_LIMIT_BYTES = 10_000_000
SYNC_BODY_LIMIT_BYTES = 20_000_000
OUTPUT_LIMIT_BYTES = 20_000_000
EXECUTION_TIMEOUT_MS = (5_000, 7 * 86_400_000)


def parse_submission(raw: bytes, *, limit_bytes: int, min_execution_timeout_ms: int) -> Submission:
    """The job that a body of /run or /runsync asks for; raises BadSubmission or BodyTooLarge."""
    if len(raw) > limit_bytes:
        raise BodyTooLarge(f"request body is {len(raw)} bytes, the limit is {limit_bytes}")
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except ValueError as error:
        raise BadSubmission(f"request body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadSubmission("request body is not a JSON object")
    job_input = body.get("input")
    if not isinstance(job_input, dict):
        raise BadSubmission("input is required and must be an object")
    webhook = body.get("webhook")
    if webhook is not None and not (isinstance(webhook, str) and webhook.startswith(("http://", "https://"))):
        raise BadSubmission("webhook must be an http(s) URL")
    raw_policy = body.get("policy")
    return Submission(
        input=job_input,
        webhook=webhook,
        policy=_parse_policy(raw_policy, min_execution_timeout_ms),
        raw_policy=raw_policy,
        s3_config=body.get("s3Config"),
    )


def parse_worker_post(raw: bytes) -> JsonObject:
    """The object that a worker posted as a job's end, progress or chunk; raises OutputRefused.

    NaN and Infinity, which Python writes and JSON does not have, are refused as the platform refuses them.
    """
    if len(raw) > OUTPUT_LIMIT_BYTES:
        raise OutputRefused(f"output is {len(raw)} bytes, the limit is {OUTPUT_LIMIT_BYTES}")
    try:
        posted = json.loads(raw, parse_constant=_refuse_constant)
    except ValueError as error:
        raise OutputRefused(f"output is not JSON: {error}") from error
    if not isinstance(posted, dict):
        raise OutputRefused("output is not a JSON object")
    return posted


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_policy(raw: object, min_execution_timeout_ms: int) -> Policy:
    if raw is None:
        return Policy()
    if not isinstance(raw, dict):
        raise BadSubmission("policy must be an object")
    timeout_ms = _positive_ms(raw, "executionTimeout", 600_000)
    if not min_execution_timeout_ms <= timeout_ms <= EXECUTION_TIMEOUT_MS[1]:
        raise BadSubmission(
            f"policy.executionTimeout must be {min_execution_timeout_ms}..{EXECUTION_TIMEOUT_MS[1]} ms"
        )
    return Policy(
        execution_timeout_s=timeout_ms / 1000,
        ttl_s=_positive_ms(raw, "ttl", 86_400_000) / 1000,
        low_priority=bool(raw.get("lowPriority", False)),
    )


def _positive_ms(raw: dict[str, object], name: str, default_ms: int) -> float:
    value = raw.get(name, default_ms)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise BadSubmission(f"policy.{name} must be a positive number of milliseconds")
    return float(value)
