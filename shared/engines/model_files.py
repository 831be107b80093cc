"""Where a model's files are: a folder, or a complete snapshot in the hub cache of the network volume.

The layout is that of huggingface_hub, which the platform's own cached models use as well:
`models--OWNER--NAME/refs/REVISION` names a commit, `snapshots/COMMIT/` holds its files. A snapshot that is complete is
used from there without asking the hub, so that a start needs no network; anything else is left to vLLM, which downloads
into the same cache.
"""

from __future__ import annotations

import json
from pathlib import Path

WEIGHTS_INDEX = "model.safetensors.index.json"


def locate(model: str, revision: str | None, hub_cache: Path) -> str:
    """The folder of `model`, or its name where it has yet to be downloaded."""
    if Path(model).is_dir():
        return model
    repository = hub_cache / f"models--{model.replace('/', '--')}"
    snapshot = repository / "snapshots" / _commit(repository, revision or "main")
    return str(snapshot) if _complete(snapshot) else model


def _commit(repository: Path, revision: str) -> str:
    ref = repository / "refs" / revision
    return ref.read_text(encoding="ascii").strip() if ref.is_file() else revision


def _complete(snapshot: Path) -> bool:
    """Whether everything is there that a model needs. A file that is still being downloaded has no link here yet."""
    names = {path.name for path in snapshot.iterdir() if path.exists()} if snapshot.is_dir() else set()
    has_tokenizer = any(name.startswith(("tokenizer.", "tokenizer_config", "tekken")) for name in names)
    return "config.json" in names and has_tokenizer and _weights(snapshot, names) <= names


def _weights(snapshot: Path, names: set[str]) -> set[str]:
    if WEIGHTS_INDEX not in names:
        return {"model.safetensors"}
    index = json.loads((snapshot / WEIGHTS_INDEX).read_text(encoding="utf-8"))
    return set(index["weight_map"].values())
