"""Which model a request goes to: its hint, else its stage, else its batch's, else the model name it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from shared.core.cards import ModelCard
from shared.core.requests import Metadata, Request
from shared.errors import InvalidRequest

DEFAULT_STAGES = {
    "sales_intel": "llama-70b",
    "polish": "llama-70b",
    "subject": "mistral",
    "email": "mistral",
}


class Router:
    """Routes by two tables: stage -> model, and the aliases of the model cards (exact names before patterns)."""

    def __init__(self, cards: Sequence[ModelCard], stages: Mapping[str, str]) -> None:
        self.cards = tuple(cards)
        self._cards = {card.name: card for card in cards}
        self._stages = stages

    def route(self, stage: str | None, index: int, request: Request) -> ModelCard:
        """The card that serves `request` (number `index` of its batch). Raises InvalidRequest naming the field and
        the unknown name, or the token limit that the model can't meet."""
        return self.choose(stage, request, f"requests[{index}].")

    def choose(self, stage: str | None, request: Request, at: str) -> ModelCard:
        """The same for one request; `at` is what its fields' names begin with."""
        card = self._choose(stage, request, at)
        if request.params.max_tokens > card.context_tokens:
            path = f"{at}params.max_tokens"
            raise InvalidRequest(f"{path}: at most {card.context_tokens} for {card.name}", param=path)
        return card

    def card(self, model: str) -> ModelCard:
        """The card of a model that a stored request was routed to. Raises InvalidRequest where none serves it now."""
        if model not in self._cards:
            raise InvalidRequest(
                f"id: requests of this batch need {model}, which is not served now", param="id"
            )
        return self._cards[model]

    def find(self, name: str) -> ModelCard | None:
        """The card of a model by its name or an alias of it."""
        if name in self._cards:
            return self._cards[name]
        for card in self.cards:
            if name in card.aliases:
                return card
        for card in self.cards:
            if any(fnmatchcase(name, pattern) for pattern in card.aliases):
                return card
        return None

    def _choose(self, stage: str | None, request: Request, at: str) -> ModelCard:
        metadata = request.metadata or Metadata()
        if metadata.model_hint is not None:
            return self._named(metadata.model_hint, f"{at}metadata.model_hint")
        path = "stage"
        if metadata.stage is not None:
            stage, path = metadata.stage, f"{at}metadata.stage"
        if stage is not None and stage in self._stages:
            return self._cards[self._stages[stage]]
        if request.params.model is not None:
            return self._named(request.params.model, f"{at}params.model")
        if stage is None:
            raise InvalidRequest("stage: required where requests name no model", param="stage")
        known = ", ".join(sorted(self._stages))
        raise InvalidRequest(f"{path}: unknown stage {stage!r:.100}; known: {known}", param=path)

    def _named(self, name: str, path: str) -> ModelCard:
        card = self.find(name)
        if card is None:
            known = ", ".join(self._cards)
            raise InvalidRequest(f"{path}: unknown model {name!r:.100}; known: {known}", param=path)
        return card
