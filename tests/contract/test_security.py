"""Claims of docs/security.md about the service: no address of a caller, no guessable id, no Lua made of text."""

import ast
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.adapters.upstash import Upstash, script
from shared.errors import InvalidRequest
from tests.contract.service import Service
from tests.contract.test_bad_input import create, refused, request
from tests.unit.project import ROOT

SCRIPTS = ROOT / "shared/adapters/scripts"
METADATA = "http://169.254.169.254/latest/meta-data"
HOSTILE = "x\") redis.call('FLUSHALL') --[[ \x00 ]] ${1} \n"


@pytest.mark.parametrize("field", ["webhook", "upload_url", "input_url", "url"])
async def test_an_address_of_a_caller_is_refused_at_the_create(service: Service, field: str) -> None:
    error = await refused(service, create(**{field: METADATA}))
    assert isinstance(error, InvalidRequest)
    assert (error.param, error.message) == (field, f"{field}: unknown field")


async def test_an_address_inside_a_request_is_text_like_any_other(service: Service) -> None:
    """The jobs name a batch and a shard; their only address is the one of this service's own inbox."""
    hostile = request(image_url=METADATA, webhook=METADATA, metadata={"callback_url": METADATA})
    await service.operations.handle(create(hostile))
    [job] = service.jobs.submitted
    assert job.job_input.keys() == {"batch", "shard", "attempt", "endpoint"}
    assert METADATA not in f"{job.webhook}{job.job_input}{job.endpoint}"


async def test_a_batchs_id_and_its_payloads_names_are_96_bits_of_the_systems_randomness(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def token_hex(nbytes: int) -> str:
        made.append(secrets.randbits(8 * nbytes).to_bytes(nbytes).hex())
        return made[-1]

    monkeypatch.setattr("shared.flow.submission.secrets.token_hex", token_hex)
    batch = await service.operations.handle(create())
    drawn = {text for text in made if len(text) == 24}
    stored = await service.store.batch(batch["id"])
    assert {batch["id"].removeprefix("batch_"), stored.nonce} <= drawn


async def test_a_scripts_text_is_the_files_whatever_the_values(
    redis: Upstash, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[Any]] = []

    async def note(command: list[Any]) -> str:
        sent.append(command)
        return "null"

    monkeypatch.setattr(redis, "_call", note)
    for path in SCRIPTS.glob("[a-z]*.lua"):
        await redis.run(path.stem, [HOSTILE], {"id": HOSTILE}, HOSTILE)
        source, sha = script(path.stem)
        assert sent[-1][:2] == ["EVALSHA", sha]
        assert source.endswith(path.read_text("utf-8"))
        assert HOSTILE not in source


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))


def test_every_script_is_run_by_a_fixed_name_and_evaluated_in_one_place() -> None:
    names = set()
    for path in (ROOT / "shared").rglob("*.py"):
        text = path.read_text("utf-8")
        assert path.name == "upstash.py" or not re.search(r"\bEVAL", text), path
        for call in calls(path):
            if ast.unparse(call.func).endswith("redis.run"):
                assert isinstance(call.args[0], ast.Constant), f"{path}: {ast.unparse(call)}"
                names.add(call.args[0].value)
    assert names == {path.stem for path in SCRIPTS.glob("[a-z]*.lua")}


def test_no_script_makes_lua_of_a_text() -> None:
    for path in SCRIPTS.glob("*.lua"):
        assert not re.search(r"\b(loadstring|load|dofile|setfenv)\b\s*\(", path.read_text("utf-8")), path
