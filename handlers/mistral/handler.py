"""The Mistral 7B endpoint: `python -u -m handlers.mistral.handler`."""

from handlers.mistral.model import CARD
from handlers.model_worker import start

if __name__ == "__main__":
    start(CARD)
