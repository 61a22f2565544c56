"""What README and docs say, held against the code: commands, links, code, errors, settings, endpoints, messages."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import re
import shlex
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest

import microsfl
from experiments import digits
from microsfl.cli import cli
from microsfl.client.remote_body import RemoteBody
from microsfl.compare.config import CompareTable, MethodTable, parse_comparison
from microsfl.compare.grid import cells
from microsfl.compare.report import TABLE_COLUMNS
from microsfl.config import FedServerSettings, SplitServerSettings
from microsfl.core.formats import COMPRESSED
from microsfl.launch.table import figures
from microsfl.records import Records
from microsfl.schema import assign
from microsfl.services import coordinator, fed_server, split_server
from microsfl.services.replica import create_app
from microsfl.spec import TRAITS, RunSpec
from microsfl.store.objects import open_store
from microsfl.trust.scopes import Scope
from microsfl.wire import messages, tensors

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
WIRE = (ROOT / "docs" / "reference" / "wire.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "concepts" / "architecture.md").read_text()

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ROUTE = re.compile(r"^\| `(GET|POST|PUT|DELETE) (/\S+)` \|", re.MULTILINE)

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    return [content for name, content in BLOCK.findall(text) if name == language]


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def anchors(path: Path) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Links and commands


@page
def test_relative_links_lead_somewhere(path: Path) -> None:
    missing = []
    for link in LINK.findall(BLOCK.sub("", path.read_text())):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not link.startswith("http") and (not target.exists() or (anchor and anchor not in anchors(target))):
            missing.append(link)
    assert missing == []


@page
def test_make_targets_exist(path: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE))
    assert named <= known
    assert path.name != "README.md" or {"demo", "test"} <= named


def command_lines(text: str) -> list[list[str]]:
    """Every `microsfl …` in shell blocks and in inline code, as words."""
    shell = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`(microsfl [^`]+)`", BLOCK.sub("", text))
    lines = [line.split(" | ")[0] for line in (*shell, *inline)]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("microsfl ")]


def complaint_about(words: list[str]) -> str | None:
    """What the command line would have against these words; nothing is run."""
    command = cli.commands.get(words[0])
    if isinstance(command, click.Group) and len(words) > 1 and words[1][0].isalpha():
        command = command.commands.get(words[1])
    if command is None:
        return f"there is no command {words[0]}"
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("--") and word not in flags]
    if unknown:
        return f"{words[0]} has no {unknown[0]}"
    values: dict[str, Any] = {}
    for word, following in pairwise(words):
        if word == "--set":
            assign(values, following)
    cells(parse_comparison(values)) if words[0] == "compare" else RunSpec.parse(values)
    return None


@page
def test_commands_and_flags_exist(path: Path) -> None:
    assert [c for words in command_lines(path.read_text()) if (c := complaint_about(words))] == []


def test_a_wrong_command_is_found() -> None:
    """The test of the test."""
    assert command_lines("```sh\nmicrosfl run --set a.b='c d'  # why\n```") == [["run", "--set", "a.b=c d"]]
    assert complaint_about(["fly"]) == "there is no command fly"
    assert complaint_about(["admin", "fly"]) == "there is no command admin"
    assert complaint_about(["admin", "invite", "me", "--for-ever"]) == "admin has no --for-ever"
    assert complaint_about(["run", "--fast"]) == "run has no --fast"
    with pytest.raises(microsfl.errors.UnknownSetting):
        complaint_about(["run", "--set", "run.speed=1"])


def test_the_readme_shows_every_command() -> None:
    assert isinstance(cli, click.Group)
    assert {words[0] for words in command_lines(README)} == set(cli.commands)


# Code blocks


@page
def test_python_blocks_compile(path: Path) -> None:
    for number, block in enumerate(blocks(path.read_text(), "python")):
        compile(block, f"{path.name}, block {number}", "exec")


def test_the_training_loop_changes_by_three_lines() -> None:
    (diff,) = blocks(README, "diff")
    added = [line[2:] for line in diff.splitlines() if line.startswith("+")]
    assert len(added) == 3
    compile("\n".join(line[2:] for line in diff.splitlines() if not line.startswith("-")), "README", "exec")
    call = next(line for line in added if "RemoteBody" in line)
    arguments = dict.fromkeys(re.findall(r"(\w+)=", call.split("RemoteBody")[1]), "")
    inspect.signature(RemoteBody).bind(**arguments)


def test_the_readme_shows_the_figures_of_a_run() -> None:
    summary: dict[str, Any] = dict.fromkeys(
        ("samples_per_s", "left_out", "accuracy", "accuracy_mean", "loss", "seconds", "rounds", "bytes_up",
         "bytes_down", "commits", "contributions"), 1)  # fmt: skip
    of_filesync = {"split_servers": 2, "bytes_saved": None, "weights_sha256": {"body": "0" * 64}}
    names = [name for name, _ in figures({**summary, **of_filesync})]
    table = blocks(README, "")[0]
    shown = re.findall(r"^  ([a-z]+) {3,}\S", table, re.MULTILINE)
    assert [name for name in shown if name in names] == names


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 225


# Comparing

GUIDE = (ROOT / "docs" / "guides" / "comparing.md").read_text()


def test_the_guide_to_comparing_names_every_key_and_column() -> None:
    keys = re.findall(r"^\| `(\w+)` \|", section(GUIDE, "The table [compare]"), re.MULTILINE)
    assert keys == list(CompareTable.model_fields)
    assert {name for name in MethodTable.model_fields if f"`{name}`" not in GUIDE} == set()
    columns = set(re.findall(r"`(\w+)`", section(GUIDE, "What is measured")))
    assert columns <= {*TABLE_COLUMNS}
    (example,) = blocks(GUIDE, "toml")
    assert len(cells(parse_comparison(tomllib.loads(example)))) == 3 * 2 * 3


def test_the_readme_has_the_table_of_the_comparison_that_was_run() -> None:
    """`python -m experiments.digits` writes it again."""
    assert digits.updated(README) == README
    asked = tomllib.loads((ROOT / "examples" / "compare-digits.toml").read_text())
    with digits.TABLE.open() as file:
        found = [(row["label"], row["partition"], row["seeds"]) for row in csv.DictReader(file)]
    grid = cells(parse_comparison(asked))
    seeds = str(len({cell.seed for cell in grid}))
    assert found == list(dict.fromkeys((cell.label, cell.partition, seeds) for cell in grid))
    assert {cell.spec.strategy.name for cell in grid} == set(TRAITS)


# Reference pages


def script(name: str) -> Any:
    """docs/<name>.py as a module; docs is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_errors_and_settings_are_as_the_code_has_them() -> None:
    """`make docs` writes them again."""
    pages = script("generate").pages()
    assert {file.name for file in pages} == {"cli.md", "endpoints.md", "errors.md", "settings.md", "metrics.md"}
    assert {file.name for file, content in pages.items() if file.read_text("utf-8") != content} == set()


def test_an_error_without_advice_and_advice_without_an_error_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test."""
    module = script("generate")
    advice = dict(module.ADVICE)
    monkeypatch.setattr(module, "ADVICE", {**advice, "gone": "?"})
    with pytest.raises(ValueError, match="gone"):
        module.errors_table()
    del advice["not_finite"]
    monkeypatch.setattr(module, "ADVICE", advice)
    with pytest.raises(KeyError, match="not_finite"):
        module.errors_table()


def test_an_endpoint_without_a_scope_and_a_scope_without_an_endpoint_are_found() -> None:
    """The test of the test: of each service, in either direction."""
    module = script("generate")
    services = module.services()
    assert services.keys() == {"Coordinator", "Split server", "Fed server"}
    for scopes, there in services.values():
        assert len(there) > 8
        for endpoint in there:
            with pytest.raises(ValueError, match=re.escape(endpoint[1])):
                module.endpoints_table({one: wanted for one, wanted in scopes.items() if one != endpoint}, there)
        with pytest.raises(ValueError, match="/v1/nowhere"):
            module.endpoints_table({**scopes, ("GET", "/v1/nowhere"): (Scope.READ,)}, there)


def test_a_service_with_an_endpoint_without_a_scope_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    split = split_server.create_replica(SplitServerSettings(store_url="memory://"), open_store("memory://"))
    split.endpoints = {one: wanted for one, wanted in split.endpoints.items() if one != ("POST", "/v1/forward")}
    with pytest.raises(ValueError, match="POST /v1/forward"):
        create_app(split, 1)
    split.close()
    table = {one: wanted for one, wanted in coordinator.ENDPOINTS.items() if one[1] != "/api/runs/{run}/stop"}
    monkeypatch.setattr(coordinator, "ENDPOINTS", table)
    missing = re.escape("/api/runs/{run}/stop")
    with closing(Records(f"sqlite:///{tmp_path}/records.db")) as records, pytest.raises(ValueError, match=missing):
        coordinator.create_app(records)


def served(app: Any) -> set[tuple[str, str]]:
    """(method, path) of every route of ours."""
    own = [route for route in app.routes if getattr(route, "methods", None) and route.path.startswith(("/v1", "/api"))]
    return {(method, route.path) for route in own for method in route.methods - {"HEAD"}}


def endpoints() -> Iterator[tuple[str, set[tuple[str, str]]]]:
    store = open_store("memory://")
    split = split_server.create_replica(SplitServerSettings(store_url="memory://"), store)
    fed = fed_server.create_replica(FedServerSettings(store_url="memory://"), store)
    yield "Split server", served(create_app(split, 1))
    yield "Fed server", served(create_app(fed, 1))
    routers = coordinator.router, coordinator.quick, *(module.router for module in coordinator.ROUTES)
    yield "Coordinator", set().union(*map(served, routers))
    split.close()


def test_every_endpoint_is_described_and_no_other() -> None:
    for title, routes in endpoints():
        assert len(routes) > 5
        assert set(ROUTE.findall(section(WIRE, title))) == routes, title


def test_every_message_is_described_with_its_fields_and_no_other() -> None:
    rows = {
        name: row for row in section(WIRE, "Messages").splitlines() for name in re.findall(r"^\| `([A-Z]\w+)`", row)
    }
    known = {
        name: cls
        for name, cls in vars(messages).items()
        if inspect.isclass(cls) and issubclass(cls, messages.Message) and name not in ("Message", "UnitMessage")
    }
    assert rows.keys() == known.keys()
    for name, cls in known.items():
        for field in cls.model_fields.keys() - messages.UnitMessage.model_fields:
            assert re.search(rf"`{field}(\.|`)", rows[name]), f"{name}.{field}"


def test_limits_and_dtypes_are_as_described() -> None:
    assert ", ".join(f"`{code}`" for code in tensors.DTYPES) in WIRE
    assert f"a header over {tensors.HEADER_LIMIT_BYTES:,} bytes; more than {tensors.TENSOR_LIMIT} tensors" in WIRE
    assert f"over {tensors.NAME_LIMIT} characters" in WIRE
    assert f"more than {tensors.DIMENSION_LIMIT} dimensions" in WIRE
    assert f"`batches` (1 to {messages.BATCHES_LIMIT};" in WIRE
    assert messages.ROUND_LIMIT == 10**9
    assert f'`"microsfl": "{tensors.VERSION}"`' in WIRE


def test_the_formats_of_compressed_tensors_are_described_and_no_other() -> None:
    assert set(re.findall(r"^\| `activations\.0\.(\w+)` \|", section(WIRE, "Messages"), re.MULTILINE)) == {*COMPRESSED}


def test_the_annotated_bytes_are_the_golden_ones() -> None:
    golden = (ROOT / "tests" / "unit" / "golden" / "forward.safetensors").read_bytes()
    (block,) = (block for block in blocks(WIRE, "") if block.startswith("00000000:"))
    lines = re.findall(r"^([0-9a-f]{8}): ((?:[0-9a-f]{4} )+)", block, re.MULTILINE)
    assert len(lines) > 4
    for offset, text in lines:
        start, content = int(offset, 16), bytes.fromhex(text)
        assert golden[start : start + len(content)] == content, offset
    # The header's text stands in the right column.
    right = [line[51:].removesuffix(" and six spaces") for line in block.splitlines()]
    header = "".join(text.strip() for text in right if text.startswith(("{", "\\", '"')))
    assert header.encode() + b" " * 6 == golden[8:0x140]


# Everything


def test_every_law_and_decision_is_linked() -> None:
    laws = {path.name for path in (ROOT / "tests" / "laws").glob("test_law_*.py")}
    for text in (README, ARCHITECTURE):
        assert set(re.findall(r"tests/laws/(\w+\.py)", text)) == laws
    decisions = {path.name for path in (ROOT / "docs" / "decisions").glob("*.md")}
    assert set(re.findall(r"docs/decisions/([\w-]+\.md)", README)) == decisions


def test_the_changelog_names_this_version() -> None:
    assert microsfl.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_drawings_are_well_formed_and_say_what_they_show() -> None:
    drawings = list((ROOT / "docs").rglob("*.svg"))
    assert drawings
    for drawing in drawings:
        root = ElementTree.fromstring(drawing.read_text())
        assert {"title", "desc"} <= {child.tag.rpartition("}")[2] for child in root}


def strays(text: str) -> list[str]:
    """Places of one machine, and documents that are not in the repository."""
    # Put together here, as this file is looked through too.
    places = [f"/{name}/" for name in ("work", "root", "home")]
    documents = [f"{name}.{ending}" for name in ("DESIGN", "STYLE", "FACTS") for ending in ("md",)]
    return [word for word in (*places, *documents) if word in text]


def test_no_file_names_a_place_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len(files) > 50
    texts = {file: file.read_text("utf-8", errors="ignore") for file in files if file.is_file()}
    assert {str(file): found for file, text in texts.items() if (found := strays(text))} == {}


def test_a_stray_is_found() -> None:
    """The test of the test."""
    assert strays("see DESIGN" + ".md") == ["DESIGN" + ".md"]
    assert strays("/" + "home/me/x")
