"""Facts about the platforms that the code builds on, as data: what it expects, where that stands, how to find out."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tests.smoke.platform import Platform

WEBHOOK = ("UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN", "WEBHOOK_TOKEN")
REDIS = WEBHOOK[:2]
STORAGE = ("S3_ENDPOINT_URL", "S3_BUCKET", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY")
LONG_JOB = ("MISTRAL_BASE_URL",)


class Verdict(Enum):
    AS_EXPECTED = "as expected"
    DIFFERS = "DIFFERS"
    # The code copes with either answer; which one it is, is worth knowing.
    LEARNED = "learned"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    verdict: Verdict
    text: str


def held(fine: bool, seen: object) -> Finding:
    return Finding(Verdict.AS_EXPECTED if fine else Verdict.DIFFERS, str(seen))


def learned(seen: object) -> Finding:
    return Finding(Verdict.LEARNED, str(seen))


def not_checked(why: str) -> Finding:
    return Finding(Verdict.NOT_CHECKED, why)


Probe = Callable[[Platform], Awaitable[Finding]]


@dataclass(frozen=True)
class Fact:
    """`stands` is the page and heading that says so; `needs` are the variables without which it is not checked. A
    fact whose probe is a text can't be checked at little cost, and the text says why."""

    name: str
    expects: str
    stands: str
    needs: Sequence[str]
    probe: Probe | str

    def missing(self, variables: Mapping[str, str]) -> list[str]:
        return [name for name in self.needs if name not in variables]
