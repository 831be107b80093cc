"""The parts of the smoke and load runs that need no service: settings, figures, shapes, reports and facts."""

import io
import re
from pathlib import Path
from typing import Any

import pytest

from tests.smoke.command import run_command
from tests.smoke.facts import Fact
from tests.smoke.figures import Measured, percentile
from tests.smoke.report import Report, Unexpected
from tests.smoke.settings import DEFAULT_FILE, BadSettings, Targets, read_settings
from tests.smoke.shapes import Created, Results, check_shape
from tests.smoke.verify import FACTS
from tests.unit.project import ROOT, text_of

ENV = {"LOCAL_BATCH_URL": "https://api.example/v2/b/", "RUNPOD_API_KEY": "key-of-runpod"}
TARGETS = Targets(median_s=3, p95_s=8, requests_per_s=20)
ALL = ("median_s", "p95_s", "requests_per_s")


def test_the_shipped_configuration_is_whole_and_has_the_documented_targets() -> None:
    load = read_settings(DEFAULT_FILE, ENV).file.load
    targets = {model: tuple(wanted.targets.model_dump().values()) for model, wanted in load.models.items()}
    assert targets == {"mistral": (3, 8, 20), "llama-70b": (15, 30, 5)}
    assert load.max_tokens == 512
    assert (load.leads.count, [stage.target_minutes for stage in load.leads.stages[:3]]) == (100, [10, 2, 3])


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        DEFAULT_FILE.read_text().replace('mistral_url: ""', 'mistral_url: "https://file.example/m"')
    )
    assert read_settings(path, ENV).model_urls == {"mistral": "https://file.example/m"}
    env = {**ENV, "MISTRAL_BASE_URL": "https://env.example/m/"}
    assert read_settings(path, env).model_urls == {"mistral": "https://env.example/m"}
    assert read_settings(path, env).batch_url == "https://api.example/v2/b"


def test_every_missing_and_wrong_variable_is_named() -> None:
    with pytest.raises(BadSettings) as faults:
        read_settings(DEFAULT_FILE, {"LLAMA_BASE_URL": "llama"})
    assert str(faults.value).splitlines() == [
        "LOCAL_BATCH_URL is not set",
        "RUNPOD_API_KEY is not set",
        "LLAMA_BASE_URL must be an http(s) URL",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [("service: [", "not YAML"), ("service: {batch_url: 7}", "service.batch_url"), ("speed: 9", "speed")],
)
def test_a_faulty_file_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadSettings, match=re.escape(said)):
        read_settings(tmp_path / "config.yaml", ENV)


def test_wrong_settings_end_the_command_with_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ENV:
        monkeypatch.delenv(name, raising=False)
    assert run_command([]) == 2
    assert "LOCAL_BATCH_URL is not set" in capsys.readouterr().err


def test_no_spelling_of_a_secret_is_shown() -> None:
    stream = io.StringIO()
    report = Report(["se/cret==", "se/cret==longer"], stream)
    report.say("a se/cret==longer b se/cret== c https://db.example/?_token=se%2Fcret%3D%3D")
    assert stream.getvalue() == "a *** b *** c https://db.example/?_token=***\n"


def test_percentiles_are_by_nearest_rank() -> None:
    assert [percentile([4, 1, 3, 2], percent) for percent in (0, 50, 95, 100)] == [1, 2, 4, 4]


@pytest.mark.parametrize(
    ("measured", "misses"),
    [
        (Measured("fine", 4, [3, 3, 3, 8], [512] * 4, 0.2), []),
        (Measured("slow", 2, [4, 9], [512] * 2, 0.1), ["median_s 4.00, target 3", "p95_s 9.00, target 8"]),
        (Measured("thin", 4, [1] * 4, [512] * 4, 4), ["requests_per_s 1.00, target 20"]),
        (Measured("lossy", 50, [1] * 49, [512] * 49, 1), ["1 failed"]),
        (Measured("dead", 2, [], [], 1), ["nothing succeeded"]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_missed_target_is_named_with_its_figure(measured: Measured, misses: list[str]) -> None:
    assert measured.misses(TARGETS, ALL) == misses


@pytest.mark.parametrize("made", [{}, {"id": "batch_1"}, {"id": f"batch_{0:024x}", "more": 1}])
def test_a_create_of_another_shape_is_found(made: dict[str, Any]) -> None:
    check_shape(Created, {"id": f"batch_{0:024x}"})
    with pytest.raises(Unexpected, match="expected created with"):
        check_shape(Created, made)


def test_a_failed_line_without_an_error_is_found() -> None:
    line = {"custom_id": "a", "status": "errored", "message": None, "usage": None, "model": "mistral"}
    check_shape(Results, {"results": [{**line, "error": {"type": "t", "message": "m"}}], "next_page": None})
    with pytest.raises(Unexpected, match="error as documented"):
        check_shape(Results, {"results": [{**line, "error": None}], "next_page": None})


def test_facts_have_names_of_their_own() -> None:
    names = [fact.name for fact in FACTS]
    assert len(set(names)) == len(names) > 30


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_every_fact_stands_where_it_says(fact: Fact) -> None:
    page, _, anchor = fact.stands.partition("#")
    heads = re.findall(r"^#+ (.+)$", text_of(ROOT / page), re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
    assert anchor in anchors
