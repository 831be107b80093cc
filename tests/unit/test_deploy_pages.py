"""README's Deploy and Cost and docs/cost.md against the definitions, the prices and what is computed from them."""

import re
from typing import Any

import pytest
from capacity import load_hardware
from costs import Offer, cost_page, offers
from definitions import FOLDER, load_deployment, load_variants, read_json
from deploy import parse

from tests.unit.project import ROOT, text_of
from tests.unit.test_docs import rows, section

DEPLOY = section(text_of(ROOT / "README.md"), "Deploy")
COST = section(text_of(ROOT / "README.md"), "Cost")
COST_PAGE = text_of(ROOT / "docs/cost.md")
OFFERS = {
    f"{offer.endpoint}={offer.variant}" if offer.variant else offer.endpoint: offer for offer in offers()
}


def shown(body: dict[str, Any]) -> dict[str, str]:
    """A definition as README's table words it."""
    workers, gpu = body["workers"], body.get("gpu")
    return {
        "pool": f"{gpu['count']} x `{gpu['pools'][0]}`"
        if gpu
        else f"`{body['cpu'][0]['id']}`, {body['cpu'][0]['vcpuCount']} vCPU",
        "workers, min / max": f"{workers['min']} / {workers['max']}",
        "idle timeout": f"{workers['idleTimeout']} s",
        "FlashBoot": f"`{body['flashboot']}`",
        "scaling": f"queue delay, {body['scaling']['queueDelay']} s",
        "execution timeout": f"{body['timeout'] // 1000} s",
        "variables": ", ".join(f"`{name}`" for name in body["env"]),
    }


def test_the_table_of_definitions_is_the_definitions() -> None:
    endpoints = load_deployment({}).endpoints
    head, *found = [row for row in rows(DEPLOY) if len(row) == 1 + len(endpoints)]
    assert [cell.strip("`") for cell in head[1:]] == list(endpoints)
    table = {row[0]: row[1:] for row in found}
    for column, definition in enumerate(endpoints.values()):
        for label, text in shown(definition.body).items():
            assert table[label][column] == text, (label, column)


def test_every_variant_is_in_the_table_of_variants() -> None:
    listed = {row[0].strip("`"): row[1] for row in rows(DEPLOY) if "=" in row[0]}
    assert listed == {
        f"{endpoint}={name}": variant.about
        for endpoint, variants in load_variants().items()
        for name, variant in variants.items()
    }


def test_every_option_that_the_pages_name_exists() -> None:
    pages = DEPLOY + COST_PAGE + text_of(ROOT / "docs/operations.md")
    lines = re.findall(r"\./build\.sh deploy([^`\n]*)", pages)
    assert len(lines) > 5
    for line in lines:
        parse([word for word in line.split("#")[0].split() if word != "|"])


def test_the_cost_page_holds_the_tables_that_the_command_prints() -> None:
    for table in cost_page().split("\n\n"):
        assert table in COST_PAGE


def test_the_cost_pages_prose_is_the_arithmetic() -> None:
    gpus = load_hardware()["gpus"]
    floor_4090 = 14.5 / gpus["NVIDIA GeForce RTX 4090"]["bandwidth_gb_s"] * 512
    floor_a100 = 141 / (2 * gpus["NVIDIA A100-SXM4-80GB"]["bandwidth_gb_s"]) * 512
    assert f"at least\n  {floor_4090:.1f} s on" in COST_PAGE
    assert f"{floor_a100:.1f} s on two A100" in COST_PAGE
    volume_usd = (
        load_deployment({}).volume.size * read_json(FOLDER / "prices.json")["volume_usd_per_gb_month"]
    )
    assert f"${volume_usd:.0f} a month" in COST_PAGE
    assert f"about {OFFERS['llama'].capacity.requests_per_s:.1f} requests a second" in COST_PAGE


@pytest.mark.parametrize(
    ("name", "reaches"),
    [("llama", False), ("llama=fp8", True), ("llama=h100-fp8", True), ("mistral=h100", True)],
)
def test_what_is_said_to_reach_both_targets_does_by_the_arithmetic(name: str, reaches: bool) -> None:
    offer = OFFERS[name]
    fast = offer.capacity.request_s <= offer.target_s
    assert (fast and offer.workers_for_target <= offer.max_workers) == reaches


@pytest.mark.parametrize("name", ["mistral", "llama"])
def test_readmes_summary_is_the_arithmetic(name: str) -> None:
    offer: Offer = OFFERS[name]
    assert f"${offer.busy_usd_hour:.2f} an hour" in COST
    assert f"**${offer.idle_usd_month:,.0f} a month**" in COST
    assert f"{offer.break_even:,}" in COST


def test_a_price_that_changes_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's test can fail: its tables follow from the price file."""
    prices = read_json(FOLDER / "prices.json")
    prices["gpu_usd_per_second"]["NVIDIA A40"]["flex"] = 0.001
    monkeypatch.setattr("costs.read_json", lambda _: prices)
    assert cost_page().split("\n\n")[1] not in COST_PAGE
