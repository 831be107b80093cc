"""What it costs, computed from prices.json and capacity.py: busy, idle, and from how many requests on it pays.

`deploy.py --costs` prints it as the tables of docs/cost.md. Arithmetic, not measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from capacity import Capacity, capacity, load_hardware
from definitions import FOLDER, Definition, Deployment, load_deployment, load_variants, read_json
from service_env import slots_of

HOUR_S = 3600
MONTH_S = 30 * 24 * HOUR_S


@dataclass(frozen=True)
class Offer:
    """One way to run a model. Dollars; a month has 30 days. `idle_usd_month`: one worker that is always on;
    `active_known`: whether at RunPod's price for active workers, else at the flex price; `break_even`: requests a
    month from which that worker is cheaper than the managed API."""

    endpoint: str
    variant: str
    worker: str
    max_workers: int
    capacity: Capacity
    busy_usd_hour: float
    idle_usd_month: float
    active_known: bool
    managed_usd_request: float
    target_s: float
    target_requests_per_s: float

    @property
    def busy_usd_1000(self) -> float:
        return self.busy_usd_hour / HOUR_S / self.capacity.requests_per_s * 1000

    @property
    def break_even(self) -> int:
        return math.ceil(self.idle_usd_month / self.managed_usd_request)

    @property
    def month_requests(self) -> int:
        return int(self.capacity.requests_per_s * MONTH_S)

    @property
    def workers_for_target(self) -> int:
        return math.ceil(self.target_requests_per_s / self.capacity.requests_per_s)


def offers() -> Iterator[Offer]:
    """Every model endpoint as defined, each followed by its variants."""
    prices, hardware = read_json(FOLDER / "prices.json"), load_hardware()
    for endpoint, variants in load_variants().items():
        for variant in ("", *variants):
            deployment = load_deployment({endpoint: variant} if variant else {})
            yield _offer(endpoint, variant, deployment, prices, hardware)


def _offer(
    endpoint: str, variant: str, deployment: Deployment, prices: dict[str, Any], hardware: dict[str, Any]
) -> Offer:
    definition = deployment.endpoints[endpoint]
    model, count = definition.model, definition.body["gpu"]["count"]
    assert model is not None  # noqa: S101 - variants are of model endpoints
    price = prices["gpu_usd_per_second"][model.gpu]
    managed, request = prices["managed_usd_per_million_tokens"][model.name], hardware["request"]
    shape = hardware["models"][model.name]
    tokens_usd = request["input_tokens"] * managed["input"] + request["output_tokens"] * managed["output"]
    return Offer(
        endpoint,
        variant,
        _worker(definition),
        definition.body["workers"]["max"],
        capacity(definition, slots_of(endpoint, deployment), hardware),
        busy_usd_hour=price["flex"] * count * HOUR_S,
        idle_usd_month=(price["active"] or price["flex"]) * count * MONTH_S,
        active_known=price["active"] is not None,
        managed_usd_request=tokens_usd / 1e6,
        target_s=shape["target_s"],
        target_requests_per_s=shape["target_requests_per_s"],
    )


def _worker(definition: Definition) -> str:
    assert definition.model is not None  # noqa: S101 - the same
    gpu = definition.model.gpu.removeprefix("NVIDIA ").removeprefix("GeForce ")
    bits = {"awq_marlin": "AWQ", "fp8": "FP8"}.get(definition.body["env"].get("QUANTIZATION", ""), "FP16")
    return f"{definition.body['gpu']['count']} x {gpu.replace('-SXM4', '').replace(' HBM3', '')}, {bits}"


def cost_page() -> str:
    """Three Markdown tables: what a worker does, what it costs, what reaches the targets."""
    found = list(offers())
    return "\n\n".join([_speed_table(found), _price_table(found), _target_table(found)])


def _name(offer: Offer) -> str:
    return f"{offer.endpoint}={offer.variant}" if offer.variant else offer.endpoint


def _speed_table(found: Sequence[Offer]) -> str:
    head = ("variant", "worker", "KV cache, tokens", "requests at once", "s a request", "requests/s")
    return _table(head, [
        (
            f"`{_name(o)}`", o.worker, f"{o.capacity.kv_tokens // 1000:,} K", str(o.capacity.slots),
            f"{o.capacity.request_s:.1f}", f"{o.capacity.requests_per_s:.2f}",
        )
        for o in found
    ])  # fmt: skip


def _price_table(found: Sequence[Offer]) -> str:
    head = (
        "variant",
        "busy, $/h",
        "busy, $/1,000 requests",
        "managed, $/1,000",
        "always on, $/month",
        "pays from",
    )
    return _table(head, [
        (
            f"`{_name(o)}`", f"{o.busy_usd_hour:.2f}", f"{o.busy_usd_1000:.2f}", f"{o.managed_usd_request * 1000:.2f}",
            f"{o.idle_usd_month:,.0f}{'' if o.active_known else ' (flex)'}", _break_even(o),
        )
        for o in found
    ])  # fmt: skip


def _break_even(offer: Offer) -> str:
    if offer.break_even > offer.month_requests:
        return "never"
    return f"{offer.break_even:,} requests ({100 * offer.break_even / offer.month_requests:.0f} % busy)"


def _target_table(found: Sequence[Offer]) -> str:
    head = ("variant", "median target", "full worker", "rate target", "workers for it (max)", "reaches")
    return _table(head, [
        (
            f"`{_name(o)}`", f"{o.target_s} s", f"{o.capacity.request_s:.1f} s", f"{o.target_requests_per_s}/s",
            f"{o.workers_for_target} ({o.max_workers})", _reached(o),
        )
        for o in found
    ])  # fmt: skip


def _reached(offer: Offer) -> str:
    fast = offer.capacity.request_s <= offer.target_s
    enough = offer.workers_for_target <= offer.max_workers
    return {(True, True): "both", (True, False): "median", (False, True): "rate"}.get(
        (fast, enough), "neither"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        .replace("| --- ", "|---")
        .replace("|--- |", "|---|")
    )
