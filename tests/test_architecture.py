"""The directions of imports, the purity of the core and the sizes of things, read from the source by `ast`.

Lazy imports inside functions count like any other. Every check is a function from sources to complaints, and a test of
its own feeds it a source that breaks the rule.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import microsfl

ROOT = Path(microsfl.__file__).parent

# What each part of the package may import from the package. "." is the package itself, for `__version__`.
BELOW = {"errors", "spec", "config", "process"}
# fmt: off
MAY_IMPORT: dict[str, set[str]] = {
    ".": {"spec", "client", "launch", "finished"},
    "errors": set(),
    "schema": {"errors"},
    "spec": {"errors", "schema"},
    "config": {"schema", "spec"},
    "process": {"errors", "spec"},
    "trust": {"errors", "config"},
    "device": {"errors", "process"},
    "core": {"errors"},
    "wire": {"errors", "spec", "core"},
    "store": {"errors"},
    "sync": {"errors", "spec", "core", "wire", "store"},
    "records": {"errors"},
    "zoo": {"errors", "spec", "core", "wire"},
    # Metrics and traces of any process: they read what it keeps, and change nothing.
    "telemetry": {".", "errors", "core", "wire"},
    "client": {".", *BELOW, "device", "core", "wire", "zoo", "telemetry", "trust"},
    "dashboard": set(),
    "services": {
        ".", *BELOW, "device", "dashboard", "core", "wire", "store", "sync", "records", "zoo", "telemetry", "trust",
    },
    # What follows a run for TensorBoard and MLflow.
    "tracking": {".", "errors", "spec"},
    # The launcher starts the roles as processes and talks to them over HTTP: it never imports a service.
    "launch": {".", *BELOW, "schema", "device", "core", "wire", "store", "sync", "zoo", "client", "tracking", "trust"},
    # One process plays every role, with the services' functions and the launcher's checks and files. The launcher does
    # not know it, and stays without services: the command line chooses between the two.
    "simulate": {*BELOW, "device", "core", "wire", "store", "sync", "zoo", "client", "services", "launch", "tracking"},
    # Simulations of many runs, and real ones, side by side.
    "compare": {".", *BELOW, "schema", "core", "zoo", "launch", "simulate"},
    "profile": {"errors", "launch"},
    # What a run will take: two short ones are measured, the rest is arithmetic.
    "capacity": {*BELOW, "core", "zoo", "client", "trust", "launch", "profile"},
    # Runs from Python. What it reads of a finished one is what the audits attack, too.
    "finished": {"errors", "schema", "spec", "core", "wire", "zoo", "launch", "simulate"},
    # A run whose coordinator is gone is read from its records.
    "watch": {*BELOW, "records", "client", "launch"},
    # The audit trail is asked of the coordinator, or read in its records.
    "trail": {"errors", "records", "client"},
    "doctor": {".", *BELOW, "store", "records", "client", "launch"},
    # Who takes part: an operator's and a site's side of it.
    "admin": {"errors", "spec", "trust", "client"},
    "audit": {"errors", "spec", "device", "core", "wire", "zoo", "launch", "finished"},
    "cli": {
        ".", *BELOW, "schema", "audit", "launch", "services", "client", "compare", "simulate", "profile", "watch",
        "doctor", "tracking", "admin", "trust", "trail", "capacity",
    },
    "__main__": {"cli", "launch"},
}
# fmt: on

# Which process each module of services/ belongs to. A process imports its own modules and the shared ones alone.
SHARED = {
    "", "http", "replica", "stopwatch", "meter", "tracing", "reduces", "replica_points", "gate", "replica_endpoints",
    "standing_by", "pool", "addresses", "callers", "connections", "turns", "leaving", "load",
}  # fmt: skip
PROCESSES: dict[str, set[str]] = {
    "coordinator": {
        "coordinator", "director", "api", "json_body", "run", "roster", "bells", "data_plane", "patience", "insist",
        "adoption", "intake", "spent", "reports", "coordinator_points", "pages",
        "at_hand", "overview", "streams", "for_people", "shown", "resolver", "errand", "origin",
        "admission", "identities", "coordinator_endpoints", "login_codes", "trail", "refusals", "trail_route",
        "scale", "scale_routes", "need", "readiness", "hedge",
    },
    "split-server": {"split_server", "split_caches", "split_points", "plausible", "split_rule"},
    "fed-server": {"fed_server"},
}  # fmt: skip

# All that the core needs from outside; I/O, clocks, the environment and other people's randomness are not among it.
CORE_IMPORTS = {
    "__future__", "collections", "contextlib", "copy", "dataclasses", "enum", "functools", "hashlib", "itertools",
    "json", "math", "numpy", "torch", "typing",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "eval", "exec", "__import__", "torch.save", "torch.load"}
# Global generators are seeded in one place, which puts their state back.
SEEDING = {"seed", "manual_seed", "manual_seed_all", "set_state", "set_rng_state", "fork_rng"}
SEEDED_IN = "microsfl.core.randomness"
TORCH_RANDOM = {
    "rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "poisson", "rand_like", "randn_like",
    "randint_like",
}  # fmt: skip
RANDOM_METHODS = {"normal_", "uniform_", "random_", "bernoulli_", "exponential_", "geometric_", "cauchy_"}
NUMPY_RANDOM = {"Generator", "PCG64", "SeedSequence"}

# What takes long to import, and so may not come along with the coordinator, the command line or the settings.
START_WITHOUT_TORCH = ("microsfl", "microsfl.cli", "microsfl.__main__", "microsfl.services.coordinator")
CLI_STARTS_WITHOUT = {
    "torch", "numpy", "fastapi", "sqlalchemy", "uvicorn", "obstore", "matplotlib", "sklearn", "prometheus_client",
    "opentelemetry",
}  # fmt: skip

FILE_LINES = 350
FUNCTION_LINES = 60
PARAMETERS = 8
# file or file:function -> why it may be larger.
EXCUSED: dict[str, str] = {}

Sources = Mapping[str, str]


@dataclass(frozen=True)
class Import:
    """`module` is absolute. when: "load" of the importing module, "call" of a function in it, or only for "typing"."""

    module: str
    line: int
    when: str


@cache
def parsed(source: str) -> ast.Module:
    """CPython 3.11 counts the depth of a tree per process: another thread that imports meanwhile makes it stumble."""
    try:
        return ast.parse(source)
    except SystemError:
        return ast.parse(source)


def sources() -> dict[str, str]:
    """Module name -> source, of the whole package; a package's `__init__` goes by the package's name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["microsfl", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imports(module: str, modules: Sources) -> list[Import]:
    """Everything that `module` imports; `from package import name` means the module package.name where there is one."""
    is_package = any(other.startswith(f"{module}.") for other in modules)
    found: list[Import] = []

    def note(node: ast.Import | ast.ImportFrom, when: str) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, when) for alias in node.names)
            return
        start = node.module or ""
        if node.level:
            parts = module.split(".")
            package = parts[: len(parts) - node.level + is_package]
            start = ".".join([*package, *filter(None, [node.module])])
        for alias in node.names:
            inner = f"{start}.{alias.name}"
            found.append(Import(inner if inner in modules else start, node.lineno, when))

    def visit(node: ast.AST, when: str) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            note(node, when)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                visit(child, "typing")
            for child in node.orelse:
                visit(child, when)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and when == "load"
            for child in ast.iter_child_nodes(node):
                visit(child, "call" if inside else when)

    visit(parsed(modules[module]), "load")
    return found


def part_of(module: str) -> str:
    """Name in `MAY_IMPORT` of a module of ours."""
    return module.split(".")[1] if "." in module else "."


def is_ours(module: str) -> bool:
    return module == "microsfl" or module.startswith("microsfl.")


def wrong_directions(modules: Sources) -> list[str]:
    complaints = [f"{m}: not in MAY_IMPORT" for m in modules if part_of(m) not in MAY_IMPORT]
    for module in modules:
        allowed = MAY_IMPORT.get(part_of(module), set()) | {part_of(module)}
        complaints += [
            f"{module}:{one.line} imports {one.module}"
            for one in imports(module, modules)
            if is_ours(one.module) and part_of(one.module) not in allowed
        ]
    return complaints


def mixed_processes(modules: Sources) -> list[str]:
    complaints = []
    process_of = {module: process for process, members in PROCESSES.items() for module in members}
    for module in (m for m in modules if part_of(m) == "services"):
        name = module.removeprefix("microsfl.services").lstrip(".")
        if name not in SHARED and name not in process_of:
            complaints.append(f"{module}: belongs to no process in PROCESSES")
        for one in imports(module, modules):
            other = one.module.removeprefix("microsfl.services.")
            foreign = other in process_of and process_of[other] != process_of.get(name)
            if (one.module.startswith("microsfl.services.") and foreign) or (
                part_of(one.module) == "records" and is_ours(one.module) and process_of.get(name) != "coordinator"
            ):
                complaints.append(f"{module}:{one.line} imports {one.module}")
    return complaints


def circles(modules: Sources) -> list[str]:
    """Modules that reach themselves through imports, lazy ones included; imports for typing alone never run."""
    edges = {
        module: sorted({one.module for one in imports(module, modules) if one.when != "typing"} & modules.keys())
        for module in modules
    }
    return [module for module in modules if module in _reached(edges[module], lambda one: edges[one])]


def loaded_with(module: str, modules: Sources, *, lazy: bool = False) -> dict[str, str]:
    """Top-level names of other people's packages that come with `module` -> the module of ours that imports them."""

    def next_ours(one: str) -> list[str]:
        parents = [one.rsplit(".", n)[0] for n in range(1, one.count(".") + 1)]
        return [*parents, *(i.module for i in _loads(one, modules, lazy) if i.module in modules)]

    ours = {module, *_reached(next_ours(module), next_ours)}
    return {i.module.split(".")[0]: one for one in sorted(ours) for i in _loads(one, modules, lazy)}


def _loads(module: str, modules: Sources, lazy: bool) -> list[Import]:
    return [one for one in imports(module, modules) if one.when == "load" or (lazy and one.when == "call")]


def _reached(start: Iterable[str], edges: Callable[[str], Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += edges(one)
    return seen


def impurities(module: str, modules: Sources) -> list[str]:
    """What a pure module may not do: I/O, clock, environment, and randomness that it was not given."""
    complaints = [
        f"{module}:{one.line} imports {one.module}"
        for one in imports(module, modules)
        if not is_ours(one.module) and one.module.split(".")[0] not in CORE_IMPORTS
    ]
    complaints += [
        f"{module}:{node.lineno} calls {ast.unparse(node.func)}"
        for node in ast.walk(parsed(modules[module]))
        if isinstance(node, ast.Call) and _is_impure(node, seeding=module == SEEDED_IN)
    ]
    return complaints


def _is_impure(call: ast.Call, *, seeding: bool) -> bool:
    name = ast.unparse(call.func)
    owner, _, leaf = name.rpartition(".")
    if leaf in SEEDING:
        return not seeding
    if (owner == "torch" and leaf in TORCH_RANDOM) or leaf in RANDOM_METHODS:
        return "generator" not in {keyword.arg for keyword in call.keywords}
    if owner in ("np.random", "numpy.random"):
        return leaf not in NUMPY_RANDOM
    return name in IMPURE_CALLS or (owner == "torch" and leaf.startswith("set_"))


def oversized(modules: Sources) -> list[str]:
    complaints = []
    for module, source in modules.items():
        lines = len(source.splitlines())
        if lines > FILE_LINES and module not in EXCUSED:
            complaints.append(f"{module} has {lines} lines; at most {FILE_LINES}")
        for node in ast.walk(parsed(source)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or f"{module}:{node.name}" in EXCUSED:
                continue
            length = (node.end_lineno or 0) - node.lineno + 1
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in given)
            if length > FUNCTION_LINES:
                complaints.append(f"{module}:{node.lineno} {node.name} has {length} lines; at most {FUNCTION_LINES}")
            if count > PARAMETERS:
                complaints.append(f"{module}:{node.lineno} {node.name} has {count} parameters; at most {PARAMETERS}")
    return complaints


def test_imports_go_in_one_direction() -> None:
    assert wrong_directions(sources()) == []


def test_services_and_client_share_no_import_and_no_process_imports_another() -> None:
    assert not MAY_IMPORT["services"] & {"client", "launch", "cli"}
    assert "services" not in MAY_IMPORT["client"] | MAY_IMPORT["launch"]
    assert mixed_processes(sources()) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circles(sources()) == []


def test_the_core_is_pure() -> None:
    modules = sources()
    core = [module for module in modules if part_of(module) == "core"]
    assert len(core) > 5
    assert [complaint for module in core for complaint in impurities(module, modules)] == []


@pytest.mark.parametrize("module", START_WITHOUT_TORCH)
def test_this_starts_without_torch(module: str) -> None:
    assert loaded_with(module, sources()).get("torch") is None


def test_the_command_line_imports_lazily() -> None:
    loaded = loaded_with("microsfl.cli", sources())
    assert {name: loaded[name] for name in CLI_STARTS_WITHOUT & loaded.keys()} == {}


@pytest.mark.parametrize("part", ["store", "records"])
def test_this_never_imports_torch(part: str) -> None:
    modules = sources()
    members = [module for module in modules if part_of(module) == part]
    assert members
    assert {one: loaded_with(one, modules, lazy=True).get("torch") for one in members} == dict.fromkeys(members)


def test_files_and_functions_are_small() -> None:
    modules = sources()
    assert oversized(modules) == []
    assert EXCUSED.keys() <= modules.keys() | {f"{m}:{n}" for m, text in modules.items() for n in _functions(text)}


def _functions(source: str) -> set[str]:
    return {n.name for n in ast.walk(parsed(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


# The tests of the tests: each check finds a source that breaks its rule.

PACKAGE = {
    "microsfl": "",
    "microsfl.core": "",
    "microsfl.core.a": "",
    "microsfl.store": "",
    "microsfl.store.a": "",
    "microsfl.client": "",
    "microsfl.client.a": "",
    "microsfl.services": "",
    "microsfl.services.http": "",
    "microsfl.services.roster": "",
    "microsfl.services.split_server": "",
    "microsfl.records": "",
}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("microsfl.core.a", "from ..store import a"),
        ("microsfl.core.a", "def f():\n    import microsfl.store.a"),
        ("microsfl.core.a", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..store.a import x"),
        ("microsfl.client.a", "from ..services.http import listen"),
        ("microsfl.services.http", "class A:\n    async def f(self):\n        from ..client import a"),
        ("microsfl.store", "from .. import core"),
        ("microsfl.unheard_of", ""),
    ],
)
def test_a_wrong_direction_is_found(module: str, source: str) -> None:
    assert wrong_directions(PACKAGE) == []
    assert len(wrong_directions({**PACKAGE, module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("microsfl.services.split_server", "from .roster import Roster"),
        ("microsfl.services.http", "def f():\n    from . import split_server"),
        ("microsfl.services.split_server", "from ..records import Records"),
        ("microsfl.services.unheard_of", ""),
    ],
)
def test_mixed_processes_are_found(module: str, source: str) -> None:
    assert mixed_processes({**PACKAGE, "microsfl.services.roster": "from ..records import Records"}) == []
    assert len(mixed_processes({**PACKAGE, module: source})) == 1


def test_a_circle_is_found_through_a_lazy_import() -> None:
    there = {"microsfl.core.a": "from ..store.a import x"}
    back = {"microsfl.store.a": "def f():\n    from ..core import a"}
    assert circles({**PACKAGE, **there}) == []
    assert set(circles({**PACKAGE, **there, **back})) == {"microsfl.core.a", "microsfl.store.a"}


@pytest.mark.parametrize(
    "source",
    [
        "import os", "from time import sleep", "def f():\n    import pathlib", "import logging",
        "from urllib import parse",
        "open('x')", "print(1)", "torch.rand(3)", "t.normal_()", "torch.manual_seed(1)", "np.random.rand(3)",
        "np.random.default_rng()", "torch.set_num_threads(1)", "torch.load(f)",
    ],
)  # fmt: skip
def test_an_impurity_is_found(source: str) -> None:
    assert len(impurities("microsfl.core.a", {**PACKAGE, "microsfl.core.a": source})) == 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.rand(3, generator=g)",
        "np.random.Generator(np.random.PCG64(np.random.SeedSequence(1)))",
        "from collections.abc import Mapping",
    ],
)
def test_what_is_pure_is_not_complained_about(source: str) -> None:
    assert impurities("microsfl.core.a", {**PACKAGE, "microsfl.core.a": source}) == []


def test_generators_are_seeded_in_one_place() -> None:
    source = "torch.default_generator.manual_seed(1)"
    assert impurities("microsfl.core.a", {**PACKAGE, "microsfl.core.a": source})
    assert not impurities(SEEDED_IN, {**PACKAGE, SEEDED_IN: source})


def test_torch_is_found_behind_another_module_and_in_a_package() -> None:
    behind = {"microsfl.core": "import torch", "microsfl.client.a": "from ..core.a import x"}
    assert loaded_with("microsfl.client.a", {**PACKAGE, **behind}) == {
        "microsfl": "microsfl.client.a",
        "torch": "microsfl.core",
    }
    lazy = {**PACKAGE, "microsfl.client.a": "def f():\n    import torch"}
    assert "torch" not in loaded_with("microsfl.client.a", lazy)
    assert "torch" in loaded_with("microsfl.client.a", lazy, lazy=True)


def test_what_is_too_large_is_found() -> None:
    long = "def f():\n" + "    pass\n" * FUNCTION_LINES
    wide = f"def f(self, *, {', '.join(f'a{i}' for i in range(PARAMETERS + 1))}): ...\n"
    for source in ("\n" * (FILE_LINES + 1), long, wide):
        assert len(oversized({"m": source})) == 1
    assert oversized({"m": "\n" * FILE_LINES}) == []
