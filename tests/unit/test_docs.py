"""The pages against the code: variables and their defaults, keys, scripts, the lifecycle, links, files and verbs."""

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from handlers.catalog import CARDS
from shared.config import load_settings
from shared.core.cards import ModelCard
from shared.core.lifecycle import MOVES
from shared.flow.operations import Operations
from tests.local_cloud.settings import parse_settings
from tests.unit.project import ROOT, text_of

README = text_of(ROOT / "README.md")
DESIGN = text_of(ROOT / "docs/design.md")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES.append(ROOT / "node-adapter/README.md")
SCRIPTS = ROOT / "shared/adapters/scripts"
# A Docker image that shares its first word with a folder.
NOT_A_FILE = {"runpod/worker-v1-vllm"}

REQUIRED = {
    "RUNPOD_API_KEY": "key",
    "UPSTASH_REDIS_REST_URL": "https://db.example",
    "UPSTASH_REDIS_REST_TOKEN": "token",
    "MISTRAL_BASE_URL": "https://api.example/v2/m",
    "LLAMA_BASE_URL": "https://api.example/v2/l",
}
S3 = {
    "S3_ENDPOINT_URL": "https://s3.example",
    "S3_BUCKET": "bucket",
    "S3_ACCESS_KEY_ID": "id",
    "S3_SECRET_ACCESS_KEY": "secret",
}


class RecordingEnvironment(dict[str, str]):
    """Remembers every name that was asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


def section(page: str, title: str) -> str:
    """The text under a heading, up to the next heading of its level or above."""
    found: list[str] = []
    level = 0
    for line in page.splitlines():
        head = re.match(r"(#{1,6}) (.+)", line)
        if level and head and len(head[1]) <= level:
            break
        if level:
            found.append(line)
        elif head and head[2] == title:
            level = len(head[1])
    assert level, f"no section {title!r}"
    return "\n".join(found)


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, head rows included."""
    found = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def documented(prefix: str = "") -> dict[str, str]:
    """The variables of README's settings tables -> their second cell, without back quotes."""
    variables = {}
    for cells in rows(section(README, "Settings")):
        if (match := re.fullmatch(r"`([A-Z0-9_]+)`", cells[0])) and match[1].startswith(prefix):
            assert match[1] not in variables, f"{match[1]} is documented twice"
            variables[match[1]] = cells[1].strip("`")
    return variables


def defaults(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in variables.items() if text and text != "required"}


PLATFORM = {
    "HF_TOKEN",
    "RUNPOD_INIT_TIMEOUT",
    "RUNPOD_MIN_MEMORY_GB",
    "VLLM_NO_USAGE_STATS",
    "VLLM_WORKER_MULTIPROCESSING_METHOD",
}


def service_variables() -> dict[str, str]:
    return {
        name: text
        for name, text in documented().items()
        if name not in PLATFORM and not name.startswith("LOCAL_")
    }


def test_readme_lists_exactly_the_variables_that_the_settings_read() -> None:
    environment = RecordingEnvironment({**REQUIRED, **S3})
    load_settings(environment, CARDS)
    assert service_variables().keys() == environment.names


def test_readme_gives_each_variables_real_default() -> None:
    given = {**REQUIRED, **S3}
    shown = {**given, **defaults(service_variables())}
    assert len(shown) > len(given)
    assert load_settings(shown, CARDS) == load_settings(given, CARDS)


def test_readme_says_which_variables_are_required() -> None:
    assert {name for name, text in documented().items() if text == "required"} == REQUIRED.keys()


def test_readme_lists_exactly_the_local_clouds_variables_with_their_defaults() -> None:
    environment = RecordingEnvironment({})
    parse_settings(environment)
    local = documented("LOCAL_")
    assert local.keys() == environment.names
    assert parse_settings(defaults(local)) == parse_settings({})


def test_readme_lists_the_sdks_variables_that_the_images_set() -> None:
    images = "".join(text_of(path) for path in (ROOT / "handlers").glob("*/Dockerfile"))
    assert set(re.findall(r"\b((?:RUNPOD|VLLM)_\w+)=", images)) <= documented().keys() & PLATFORM


def test_readme_names_the_variables_of_the_adapter_and_of_the_images() -> None:
    adapter = re.findall(r"_VARIABLE = '(\w+)'", text_of(ROOT / "node-adapter/src/environment.ts"))
    images = re.findall(r"\$\{([A-Z]+):[-+]", text_of(ROOT / "build.sh"))
    assert adapter
    assert images
    for name in {*adapter, *images}:
        assert f"`{name}`" in section(README, "Settings"), name


def test_readme_has_every_operation() -> None:
    known = re.findall(r'^            "(\w+)": self\.\1,$', source_of(Operations), re.MULTILINE)
    assert [
        cells[0].strip("`") for cells in rows(section(README, "Operations").split("A **request**")[0])
    ] == [
        "operation",
        *known,
    ]


def source_of(kind: type) -> str:
    return text_of(ROOT / (kind.__module__.replace(".", "/") + ".py"))


def test_readme_has_every_status_code_and_type_of_the_error_tree() -> None:
    tree = ast.get_docstring(ast.parse(text_of(ROOT / "shared/errors.py"))) or ""
    shown = {(cells[0].strip("`"), cells[1]) for cells in rows(section(README, "Operations"))}
    for status, kind in re.findall(r" (\d{3}) (\w+_\w+)", tree):
        assert (kind, status) in shown
    assert {("api_error", "500"), ("overloaded_error", "503")} <= shown


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_readme_names_every_alias_of_a_model(card: ModelCard) -> None:
    routing = section(README, "Routing")
    # A single word that the name begins with, and the Hugging Face names, go without saying.
    spelled = {alias for alias in card.aliases if "/" not in alias and alias not in card.name.split("-")}
    assert spelled
    assert all(f"`{alias}`" in routing for alias in spelled)


def test_readme_has_every_verb_of_build_sh() -> None:
    verbs = re.findall(r"^  ([a-z-]+) {2,}\S", text_of(ROOT / "build.sh"), re.MULTILINE)
    assert {"demo", "test"} <= set(verbs)
    assert set(verbs) == set(re.findall(r"\./build\.sh ([a-z-]+)", README)) - {"verb"}


def test_readme_shows_the_checks_that_the_test_command_makes() -> None:
    checks = text_of(ROOT / "build.sh").split("run_checks() {")[1].split("\n}")[0]
    titles = re.findall(r'step "([^"]+)"', checks)
    assert titles
    assert re.findall(r"^(\S.*?) {2,}\d+ s$", section(README, "Two commands"), re.MULTILINE) == titles


def test_the_lifecycle_table_is_the_codes() -> None:
    table = rows(section(DESIGN, "A shard's life"))[1:]
    moves = {(state.value, event.value): end.value for (state, event), end in MOVES.items()}
    assert {(state, event): end for state, event, end in table} == moves
    assert len(table) == len(moves)


def test_the_keys_table_names_every_key_with_its_real_form() -> None:
    tree = ast.parse(text_of(ROOT / "shared/adapters/keys.py"))
    table = {cells[1].strip("`"): cells[0] for cells in rows(section(DESIGN, "Keys"))[1:]}
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name == "lease":
            continue
        assert node.name in table, f"{node.name} is not in the table"
        # The placeholders have their own names in the table, so only the fixed parts are compared.
        returned = re.search(r'return f"([^"]+)"', ast.unparse(node).replace("'", '"'))
        if returned:
            pattern = re.sub(r"\\\{[^}]*\}", r"\\{[^}]+\\}", re.escape(returned[1]))
            assert re.search(f"`{pattern}`", table[node.name]), (node.name, returned[1])
    assert "`lease`" in section(DESIGN, "Keys")


def test_the_keys_table_names_every_fixed_key() -> None:
    tree = ast.parse(text_of(ROOT / "shared/adapters/keys.py"))
    fixed = [node.value.value for node in tree.body if isinstance(node, ast.Assign) and is_text(node.value)]  # type: ignore[attr-defined]
    assert fixed
    for key in fixed:
        assert f"| `{key}` |" in section(DESIGN, "Keys")


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_the_scripts_table_has_every_script() -> None:
    scripts = {path.stem for path in SCRIPTS.glob("[a-z]*.lua")}
    assert scripts
    assert {cells[0].strip("`") for cells in rows(section(DESIGN, "Scripts"))[1:]} == scripts


def test_the_scripts_table_has_every_verdict() -> None:
    for cells in rows(section(DESIGN, "Scripts"))[1:]:
        script = text_of(SCRIPTS / f"{cells[0].strip('`')}.lua")
        answer = re.search(r'verdict: ((?:"\w+"\|?)+)', script)
        for verdict in re.findall(r'"(\w+)"', answer[1]) if answer else []:
            assert re.search(rf"\b{verdict}\b", cells[2]), (cells[0], verdict)


def anchors(page: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(text_of(linked)), target


def test_the_index_of_decisions_lists_each_with_its_title() -> None:
    folder = ROOT / "docs/adr"
    index = text_of(folder / "README.md")
    numbers = []
    for path in sorted(folder.glob("[0-9]*.md")):
        heading = text_of(path).splitlines()[0]
        assert heading.startswith(f"# {path.name[:4]}. ")
        assert f"[{path.name[:4]}]({path.name})" in index
        numbers.append(int(path.name[:4]))
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("page", PAGES[:-1], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    tops = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and path.name != "out")
    for name in re.findall(rf"`((?:{tops})/[\w./*-]*)`", text_of(page)):
        assert name in NOT_A_FILE or list(ROOT.glob(name.rstrip("/"))), f"{page.name} names {name}"


def test_find_your_way_names_files_only() -> None:
    cells = [cells[1] for cells in rows(section(README, "Find your way"))[1:]]
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) > 30
    assert all((ROOT / name).exists() for name in names), [n for n in names if not (ROOT / n).exists()]


@pytest.mark.parametrize(("model", "worker"), [("mistral", "4090"), ("llama-70b", "A100")])
def test_readme_states_the_costs_of_the_price_file(model: str, worker: str) -> None:
    prices = json.loads(text_of(ROOT / "runpod/prices.json"))
    gpu = prices["models"][model]
    assert worker in gpu["gpu"]
    rates = prices["gpu_usd_per_second"][gpu["gpu"]]
    cost = section(README, "Cost")
    assert f"${rates['flex'] * gpu['count'] * 3600:.2f} an hour" in cost
    # The page gives the month to about five dollars.
    stated = [int(text.replace(",", "")) for text in re.findall(r"\*\*\$([\d,]+)", cost)]
    month = rates["active"] * gpu["count"] * 86_400 * 30
    assert any(abs(month - amount) <= 5 for amount in stated), (month, stated)


def test_the_changelog_has_the_version_of_the_project() -> None:
    version = re.search(r'^version = "([^"]+)"', text_of(ROOT / "pyproject.toml"), re.MULTILINE)
    assert version
    changelog = text_of(ROOT / "CHANGELOG.md")
    assert re.search(rf"^## \[{re.escape(version[1])}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)
