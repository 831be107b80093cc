"""Facts about completion webhooks that go straight into Redis."""

from tests.smoke.endpoint import Json
from tests.smoke.facts import LONG_JOB, WEBHOOK, Fact, Finding, held, learned, not_checked
from tests.smoke.facts_jobs import HEALTH, MISTAKE
from tests.smoke.platform import Platform

BODY_KEYS = {"delayTime", "executionTime", "id", "input", "output", "status", "webhook"}


async def a_webhook_arrives(platform: Platform) -> Finding:
    body = await platform.delivered(await platform.run(platform.batch, HEALTH, webhook=platform.webhook))
    if body is None:
        return held(False, f"nothing in Redis within {platform.wanted.webhook_s:g} s")
    whole = body.get("webhook") == platform.webhook
    return held(True, f"arrived, {'with its' if whole else 'without the'} whole address in the body")


async def a_body_has_its_keys(platform: Platform) -> Finding:
    body = await platform.delivered(await platform.run(platform.batch, HEALTH, webhook=platform.webhook))
    if body is None:
        return not_checked("no webhook came")
    return held({"id", "input", "output", "status"} <= body.keys(), _keys(body))


async def a_failure_is_told(platform: Platform) -> Finding:
    body = await platform.delivered(await platform.run(platform.batch, MISTAKE, webhook=platform.webhook))
    if body is None:
        return held(False, f"nothing in Redis within {platform.wanted.webhook_s:g} s")
    return held(body.get("input") == MISTAKE and "error" in body, f"{body.get('status')}, {_keys(body)}")


async def a_cancel_may_be_told(platform: Platform) -> Finding:
    job = await platform.run_long(webhook=platform.webhook)
    await platform.mistral.send("POST", f"cancel/{job['id']}")
    return learned(_told(await platform.delivered(job)))


async def an_overrun_may_be_told(platform: Platform) -> Finding:
    policy = {"executionTimeout": platform.wanted.execution_timeout_ms}
    job = await platform.run_long(webhook=platform.webhook, policy=policy)
    final = await platform.until_final(platform.mistral, job)
    if final["status"] == "COMPLETED":
        return not_checked("the long job ended before its executionTimeout")
    return learned(_told(await platform.delivered(job)))


def _told(body: Json | None) -> str:
    return "no webhook" if body is None else f"a webhook: {body.get('status')}"


def _keys(body: Json) -> str:
    """Names only: the values hold the webhook's token."""
    more, fewer = sorted(body.keys() - BODY_KEYS), sorted(BODY_KEYS - body.keys())
    return f"the documented keys{f', and {more}' if more else ''}{f', without {fewer}' if fewer else ''}"


HINT = "docs/design.md#flow"
COPED = "docs/design.md#a-shards-life"

FACTS = (
    Fact("a webhook into Redis", "arrives with its query string", HINT, WEBHOOK, a_webhook_arrives),
    Fact("a webhook's body", "id, input, output and status", HINT, WEBHOOK, a_body_has_its_keys),
    Fact("a webhook of a failed job", "comes, and has the error", HINT, WEBHOOK, a_failure_is_told),
    Fact(
        "a webhook of a cancelled job", "may come or not", COPED, (*WEBHOOK, *LONG_JOB), a_cancel_may_be_told
    ),
    Fact("a webhook of an overrun", "may come or not", COPED, (*WEBHOOK, *LONG_JOB), an_overrun_may_be_told),
)
