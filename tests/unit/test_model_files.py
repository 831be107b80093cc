"""Finding a model's files on the network volume, so that nothing is downloaded twice."""

import json
from pathlib import Path

import pytest

from shared.engines.model_files import locate

NAME = "mistralai/Mistral-7B-Instruct-v0.3"
COMMIT = "c170c708c41dac9275d15a8fff4eca08d52bab71"


def cache_of(tmp_path: Path, *, parts: tuple[str, ...] = (), missing: str = "", ref: str = "main") -> Path:
    """A hub cache that holds the model, as huggingface_hub lays it out; `parts` are the weights of a large one."""
    repository = tmp_path / "models--mistralai--Mistral-7B-Instruct-v0.3"
    (repository / "refs" / ref).parent.mkdir(parents=True)
    (repository / "refs" / ref).write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    names = {"config.json", "tokenizer.json", *(parts or ("model.safetensors",))} - {missing}
    for name in names:
        (snapshot / name).write_text("{}")
    if parts:
        index = {"weight_map": {f"layer.{number}": part for number, part in enumerate(parts)}}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    return snapshot


PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    assert locate(str(tmp_path), None, Path("/nowhere")) == str(tmp_path)


@pytest.mark.parametrize("parts", [(), PARTS])
def test_a_complete_snapshot_is_used_from_the_volume(tmp_path: Path, parts: tuple[str, ...]) -> None:
    assert locate(NAME, None, tmp_path) == NAME
    assert locate(NAME, None, cache_of(tmp_path, parts=parts).parents[2]) == str(
        tmp_path / "models--mistralai--Mistral-7B-Instruct-v0.3" / "snapshots" / COMMIT
    )


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", PARTS[1]])
def test_a_half_downloaded_snapshot_is_left_to_vllm(tmp_path: Path, missing: str) -> None:
    cache_of(tmp_path, parts=PARTS, missing=missing)
    assert locate(NAME, None, tmp_path) == NAME


def test_a_link_to_a_file_that_is_not_there_yet_does_not_count(tmp_path: Path) -> None:
    snapshot = cache_of(tmp_path)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(tmp_path / "blobs" / "not-yet")
    assert locate(NAME, None, tmp_path) == NAME


def test_a_revision_is_a_branch_or_a_commit(tmp_path: Path) -> None:
    snapshot = cache_of(tmp_path, ref="v1")
    assert locate(NAME, "v1", tmp_path) == str(snapshot)
    assert locate(NAME, COMMIT, tmp_path) == str(snapshot)
    assert locate(NAME, None, tmp_path) == NAME
