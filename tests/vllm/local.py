"""What turns a local cloud's engines into real ones, on the tiny models where the caller names no others."""

from collections.abc import Mapping

from tests.local_cloud.cloud import REPOSITORY

MODELS = REPOSITORY / ".venv-vllm/models"
TINY = f"mistral={MODELS / 'mistral'},llama={MODELS / 'llama'}"


def real_engines(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables over `environ`, which may name other models in LOCAL_MODELS or, the same for all, in MODEL_NAME."""
    named = "LOCAL_MODELS" in environ or "MODEL_NAME" in environ
    return {"LOCAL_ENGINE": "vllm", **({} if named else {"LOCAL_MODELS": TINY})}


def are_tiny(environ: Mapping[str, str]) -> bool:
    return "LOCAL_MODELS" in real_engines(environ)
