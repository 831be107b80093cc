"""The models this deployment serves. Every handler feeds every model's queue, so every image carries both cards."""

from handlers.llama.model import CARD as LLAMA
from handlers.mistral.model import CARD as MISTRAL

CARDS = (MISTRAL, LLAMA)
