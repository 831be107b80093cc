"""The lead run: the four stages of a lead, each a batch fed by the answers of the ones before, timed."""

import json
from pathlib import Path
from time import monotonic

from tests.smoke.endpoint import Json
from tests.smoke.report import Report
from tests.smoke.service import Service
from tests.smoke.settings import LeadRun, LeadStage

ROOT = Path(__file__).resolve().parents[2]

# By lead: its own fields, and then the answer of each stage under the stage's name.
Facts = dict[str, dict[str, str]]


async def run_leads(service: Service, wanted: LeadRun, report: Report) -> bool:
    """True if every lead has its answer in every stage, within the stage's target."""
    facts = read_leads(ROOT / wanted.file, wanted.count)
    met = True
    for stage in wanted.stages:
        began_s = monotonic()
        status, lines = await service.complete(stage.name, [ask(stage, lead, facts) for lead in facts])
        minutes = (monotonic() - began_s) / 60
        failed = take_answers(stage, lines, facts)
        in_time = minutes <= stage.target_minutes
        met = met and in_time and not failed
        verdict = "met" if in_time else "missed"
        report.say(
            f"{len(facts)} leads, {stage.name} on {', '.join(status['models'])}: {minutes:.2f} min, target "
            f"{stage.target_minutes:g} min: {verdict}{f'; {failed} failed' if failed else ''}"
        )
        if failed:
            report.say("the stages after it need every answer, and were not run")
            break
    return met


def read_leads(path: Path, count: int) -> Facts:
    """The first leads of a file, by lead id."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:count]
    leads = [json.loads(line) for line in lines]
    return {lead["leadId"]: {name: _text(value) for name, value in lead.items()} for lead in leads}


def ask(stage: LeadStage, lead: str, facts: Facts) -> Json:
    prompt = stage.prompt.format_map(facts[lead])
    return {
        "custom_id": f"lead_{lead}_{stage.name}",
        "params": {
            "system": stage.system,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": stage.max_tokens,
        },
        "metadata": {"leadId": lead},
    }


def take_answers(stage: LeadStage, lines: list[Json], facts: Facts) -> int:
    """Keeps the answers of a stage for the next one; how many are missing."""
    texts = {
        line["custom_id"]: line["message"]["content"][0]["text"]
        for line in lines
        if line["status"] == "succeeded"
    }
    for lead, known in facts.items():
        known[stage.name] = texts.get(f"lead_{lead}_{stage.name}", "")
    return len(facts) - len(texts)


def _text(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
