"""What no source file may have: ways by which something that came from elsewhere could be run, or trust be turned off.

Pickle and its like are in tests/laws/test_law_8_no_code_from_the_network.py.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import microsfl

ROOT = Path(microsfl.__file__).parent
SOURCES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.rglob("*.py"))}

# Where a name that is not in the source becomes a module, and why that is none that came over the network.
IMPORTERS = {
    "__init__.py": "the package's own names",
    "device.py": "a part of torch, by its name in the source",
    "zoo/datasets.py": "sklearn, by its name in the source; a user's function, after the allow-list",
    "zoo/models.py": "a user's factory, after the allow-list",
    "launch/fork_server.py": "the roles, by names that this machine's launcher sends over a pipe",
    "launch/aside.py": "the launcher's own functions, by names that it gives on a pipe",
}
IMPORTS = {
    "import_module",
    "pkgutil.resolve_name",
    "resolve_name",
    "importlib.import_module",
    "__import__",
    "importlib.__import__",
}
CALLS = {
    "os.system",
    "os.popen",
    "tempfile.mktemp",
    "yaml.load",
    "torch.hub.load",
    "runpy.run_path",
    "ssl._create_unverified_context",
}
ARGUMENTS = {("shell", "True"), ("verify", "False"), ("check_hostname", "False"), ("cert_reqs", "'CERT_NONE'")}
OPTIONS = {"verify_signature"}


def forbidden(source: str) -> list[str]:
    """What `source` may not have, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            found.append(ast.unparse(node.func))
        if isinstance(node, ast.keyword) and (node.arg, ast.unparse(node.value)) in ARGUMENTS:
            found.append(f"{node.arg}={ast.unparse(node.value)}")
        if isinstance(node, ast.Constant) and node.value in OPTIONS:
            found.append(node.value)
    return found


def importers(sources: dict[str, str]) -> set[str]:
    return {
        name
        for name, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTS
    }


def written_sql(source: str) -> list[str]:
    """Calls of `text(…)` whose SQL is put together from values."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("text", "sqlalchemy.text")
        and not (len(node.args) == 1 and isinstance(node.args[0], ast.Constant))
    ]


@pytest.mark.parametrize("name", SOURCES)
def test_no_source_file_has_this(name: str) -> None:
    assert forbidden(SOURCES[name]) == []
    if name.startswith("records/"):
        assert written_sql(SOURCES[name]) == []


def test_only_these_import_by_name() -> None:
    assert importers(SOURCES) == IMPORTERS.keys()


def test_tokens_are_read_in_one_place_and_of_one_algorithm() -> None:
    calls = {
        name: [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        for name, source in SOURCES.items()
    }
    found = {
        (name, ast.unparse(keyword.value))
        for name, nodes in calls.items()
        for node in nodes
        if ast.unparse(node.func) == "jwt.decode"
        for keyword in node.keywords
        if keyword.arg == "algorithms"
    }
    assert found == {("trust/tokens.py", "[ALGORITHM]")}
    assert sum(ast.unparse(node.func) == "jwt.decode" for nodes in calls.values() for node in nodes) == 1


@pytest.mark.parametrize(
    "source",
    ["os.system('x')", "subprocess.run(c, shell=True)", "http(verify=False)", "d(t, options={'verify_signature': 0})"],
)
def test_what_is_forbidden_is_found(source: str) -> None:
    """The test of the test."""
    assert forbidden(source)
    assert importers({"x.py": "def f(n):\n    return __import__(n)"}) == {"x.py"}
    assert written_sql("text(f'SELECT {x}')")
    assert not written_sql("text('SELECT 1')")
