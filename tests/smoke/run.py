"""`./build.sh smoke`: all checks beside each other, a line for each in their order, and nothing left behind."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

from tests.smoke.checks import CHECKS, Check, Smoke
from tests.smoke.endpoint import Endpoint, NoAnswer, http_client
from tests.smoke.report import Report, Unexpected
from tests.smoke.service import Refused, Service
from tests.smoke.settings import Settings


async def check_service(settings: Settings, report: Report, checks: Sequence[Check] = CHECKS) -> bool:
    """True if every check passed and every batch of theirs was removed."""
    wanted = settings.file.smoke
    report.say(f"{settings.batch_url}: {len(checks)} checks")
    async with http_client() as client:
        endpoint = Endpoint(client, settings.batch_url, settings.api_key)
        service = Service(endpoint, wanted.wait_s, wanted.poll_s)
        async with removed_afterwards(service, report) as left:
            running = [asyncio.create_task(_try(check, Smoke(service, wanted))) for check in checks]
            try:
                passed = [
                    _tell(report, check, await task) for check, task in zip(checks, running, strict=True)
                ]
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
    report.say(f"{sum(passed)} of {len(checks)} checks passed")
    return all(passed) and not left


async def _try(check: Check, smoke: Smoke) -> tuple[bool, str, float]:
    """Whether the check passed, what it said, and its seconds."""
    began_s = monotonic()
    try:
        said, passed = await check.run(smoke), True
    except (Unexpected, Refused, NoAnswer) as reason:
        said, passed = str(reason), False
    except (KeyError, TypeError, IndexError, AttributeError) as reason:
        # An answer so far from its shape that a check could not even read it.
        said, passed = f"an answer lacks what the check reads: {type(reason).__name__}: {reason}", False
    return passed, said, monotonic() - began_s


def _tell(report: Report, check: Check, outcome: tuple[bool, str, float]) -> bool:
    passed, said, seconds = outcome
    report.say(f"{'ok  ' if passed else 'FAIL'}  {check.name} ({seconds:.1f} s): {said}")
    return passed


@asynccontextmanager
async def removed_afterwards(service: Service, report: Report) -> AsyncIterator[list[str]]:
    """Removes the batches of a run, however it ends. The list, filled at the end, names those left behind."""
    left: list[str] = []
    try:
        yield left
    finally:
        left += await service.clean_up()
        for line in left:
            report.say(f"left behind: {line}")
