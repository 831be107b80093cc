"""Whether the data centre has the GPUs: the volume binds the model endpoints to it, so a wrong one means a queue
that never moves. Only a warning: the catalogue tells what is there now.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from account import Json, RunpodAccount
from definitions import Deployment
from failures import PlatformError


def gpu_warning(account: RunpodAccount, deployment: Deployment, place: str) -> str:
    """What `place` lacks, and where all of it is; empty if it lacks nothing or RunPod doesn't tell."""
    wanted = {d.model.gpu for d in deployment.endpoints.values() if d.model and d.volume}
    try:
        offered = {str(center.get("id")): _gpus(center) for center in account.data_centers()}
    except PlatformError:
        return ""
    lacking = sorted(wanted - offered.get(place, set(wanted)))
    if not lacking:
        return ""
    others = sorted(name for name, gpus in offered.items() if wanted <= gpus)
    return f"{place} lists no {' and no '.join(lacking)} now; {_where(others)}"


def _gpus(center: Json) -> set[str]:
    listed: list[Any] = center.get("gpuAvailability") or []
    return {item["id"] for item in listed if item.get("availability") != "NONE"}


def _where(places: Collection[str]) -> str:
    if not places:
        return "no data centre lists all the GPUs"
    return f"these list all the GPUs: {', '.join(places)} (--data-center)"
