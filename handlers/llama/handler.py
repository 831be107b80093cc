"""The Llama-3 70B endpoint: `python -u -m handlers.llama.handler`."""

from handlers.llama.model import CARD
from handlers.model_worker import start

if __name__ == "__main__":
    start(CARD)
