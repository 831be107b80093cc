"""`./build.sh smoke --verify-platform`: probes every fact beside the others, and prints what differs from the code."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from shared.errors import ServiceError
from tests.smoke import facts_jobs, facts_openai, facts_stores, facts_webhooks
from tests.smoke.endpoint import Endpoint, Json, NoAnswer
from tests.smoke.facts import WEBHOOK, Fact, Finding, Verdict, not_checked
from tests.smoke.platform import Platform, open_platform
from tests.smoke.report import Report, shown
from tests.smoke.settings import Settings

SMALL_JOB = {"prompt": "Hello", "sampling_params": {"max_tokens": 1}}
FACTS: Sequence[Fact] = (*facts_jobs.FACTS, *facts_webhooks.FACTS, *facts_openai.FACTS, *facts_stores.FACTS)


async def verify_platform(settings: Settings, report: Report, facts: Sequence[Fact] = FACTS) -> bool:
    """True if nothing differs from what the code expects."""
    async with open_platform(settings) as platform:
        try:
            await _warm_up(platform, report)
            findings = await _find(platform, facts)
        except NoAnswer as reason:
            report.say(f"stopped: {reason}")
            return False
        finally:
            left = await platform.clean_up()
            for line in left:
                report.say(f"left behind: {line}")
    for fact, finding in zip(facts, findings, strict=True):
        report.say(f"{finding.verdict.value:<12} {fact.name}: {shown(finding.text)}")
        if finding.verdict is Verdict.DIFFERS:
            report.say(f"{'':<12} the code expects: {fact.expects} ({fact.stands})")
    counts = Counter(finding.verdict for finding in findings)
    report.say(", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict))
    return not counts[Verdict.DIFFERS] and not left


async def _warm_up(platform: Platform, report: Report) -> None:
    """A cold start is no fact to learn, and not within the time limit."""
    wanted = platform.wanted
    report.say(f"{platform.batch.url}: waiting for workers, then at most {wanted.limit_s:g} s")
    endpoints: list[tuple[Endpoint, Json]] = [(platform.batch, facts_jobs.HEALTH)]
    if "mistral" in platform.settings.model_urls:
        endpoints.append((platform.mistral, SMALL_JOB))
    await asyncio.gather(
        *(endpoint.work(job, wanted.warm_up_s, wanted.poll_s) for endpoint, job in endpoints)
    )
    if not [name for name in WEBHOOK if name not in platform.settings.variables]:
        await platform.open_inbox()


async def _find(platform: Platform, facts: Sequence[Fact]) -> list[Finding]:
    tasks = [asyncio.create_task(_probe(platform, fact)) for fact in facts]
    try:
        await asyncio.wait(tasks, timeout=platform.wanted.limit_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    late = not_checked(f"not settled within {platform.wanted.limit_s:g} s")
    return [late if task.cancelled() else task.result() for task in tasks]


async def _probe(platform: Platform, fact: Fact) -> Finding:
    if isinstance(fact.probe, str):
        return not_checked(fact.probe)
    if missing := fact.missing(platform.settings.variables):
        return not_checked(f"needs {', '.join(missing)}")
    try:
        return await fact.probe(platform)
    except (NoAnswer, ServiceError) as reason:
        return Finding(Verdict.DIFFERS, str(reason))
    except (KeyError, TypeError, ValueError, AttributeError) as reason:
        # An answer so far from what was expected that the probe could not even read it.
        return Finding(Verdict.DIFFERS, f"unreadable: {type(reason).__name__}: {reason}")
