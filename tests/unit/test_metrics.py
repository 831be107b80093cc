"""Rates over the last minutes, and samples as Prometheus text and as JSON."""

import re

import pytest

from shared.core.metrics import HELP, Sample, as_json, rates, render


def test_rates_are_over_the_last_five_minutes_and_no_longer() -> None:
    minutes = {10: (1000, 0, 1000), 11: (60, 5, 600), 14: (60, 5, 600), 15: (6, 0, 60), 16: (1000, 0, 1000)}
    assert rates(minutes, 15 * 60 + 30.0) == pytest.approx((126 / 270, 1260 / 270))


def test_no_work_is_a_rate_of_nothing() -> None:
    assert rates({}, 10**9) == (0, 0)


def test_a_family_is_described_once_before_its_samples() -> None:
    text = render(
        [
            Sample("batch_latency_seconds_bucket", 1, {"le": "10"}),
            Sample("batch_latency_seconds_count", 2),
            Sample("batches_open", 3),
        ]
    )
    assert text == (
        "# HELP llm_batch_batch_latency_seconds Time from a batch's create to its end\n"
        "# TYPE llm_batch_batch_latency_seconds histogram\n"
        'llm_batch_batch_latency_seconds_bucket{le="10"} 1\n'
        "llm_batch_batch_latency_seconds_count 2\n"
        "# HELP llm_batch_batches_open Batches that have not ended\n"
        "# TYPE llm_batch_batches_open gauge\n"
        "llm_batch_batches_open 3\n"
    )


def test_label_values_are_escaped() -> None:
    text = render([Sample("queue_batches", 1, {"model": 'a"b\\c\nd'})])
    assert '{model="a\\"b\\\\c\\nd"} 1\n' in text


def test_every_family_has_a_name_and_type_that_prometheus_takes() -> None:
    assert all(re.fullmatch(r"[a-z_]+", name) for name in HELP)
    assert {kind for kind, _ in HELP.values()} <= {"gauge", "counter", "histogram"}
    assert all(name.endswith("_total") == (kind == "counter") for name, (kind, _) in HELP.items())


def test_json_has_the_same_figures() -> None:
    samples = [Sample("queue_batches", 1.5, {"model": "m"})]
    assert as_json(samples) == [{"name": "queue_batches", "labels": {"model": "m"}, "value": 1.5}]
