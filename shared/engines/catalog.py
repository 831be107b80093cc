"""The engines by name. `ENGINE` chooses; a GPU image's default is vLLM."""

from __future__ import annotations

from shared.config import Settings
from shared.core.cards import ModelCard
from shared.engines.simulated import SimTiming, SimulatedEngine
from shared.ports.engine import Engine


def build_engine(settings: Settings, card: ModelCard) -> Engine:
    """The engine for one model, not started yet."""
    if settings.engine == "simulated":
        slots = settings.sim_slots or card.slots
        timing = SimTiming(settings.sim_ttft_ms, settings.sim_tpot_ms, slots)
        exact = [alias for alias in card.aliases if "*" not in alias]
        return SimulatedEngine(timing, list(dict.fromkeys([card.name, card.repository, *exact])))
    from shared.engines.vllm_engine import VllmEngine  # noqa: PLC0415 - what it imports is in GPU images only

    return VllmEngine(card, settings.vllm)
