"""A strict reader of Prometheus' text exposition format (version 0.0.4).

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
from dataclasses import dataclass, field

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([0-9.eE+-]+|\+Inf|-Inf|NaN)")
HELP = re.compile(rf"# HELP ({NAME}) \S.*")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge|histogram)")
SUFFIXES = ("_bucket", "_sum", "_count")


@dataclass
class Family:
    """Samples of one metric by (name, labels)."""

    kind: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)


def parse_metrics(text: str) -> dict[str, Family]:
    """Families by name. Fails for a line that the format does not have, for a family that comes in two pieces or
    without HELP and TYPE, and for a sample that stands twice."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    current = helped = ""
    for line in text.splitlines():
        if match := HELP.fullmatch(line):
            helped = match[1]
            assert helped not in families, f"two pieces: {line}"
        elif match := TYPE.fullmatch(line):
            current = match[1]
            assert current == helped, f"TYPE without its HELP: {line}"
            families[current] = Family(match[2])
        else:
            match = SAMPLE.fullmatch(line)
            assert match, f"not of the format: {line!r}"
            family = families[current]
            allowed = {current + suffix for suffix in SUFFIXES} if family.kind == "histogram" else {current}
            assert match[1] in allowed, f"a sample among others: {line}"
            key = (match[1], _labels(match[2] or ""))
            assert key not in family.samples, f"twice: {line}"
            family.samples[key] = float(match[3])
    assert all(family.samples for family in families.values())
    return families


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [label.split("=", 1) for label in re.findall(LABEL, text)]
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), f"a label twice: {text}"
    return tuple(sorted((name, value[1:-1]) for name, value in pairs))
