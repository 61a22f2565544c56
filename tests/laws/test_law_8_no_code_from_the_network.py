"""Law 8: nothing is ever unpickled, and models come from an allow-list in the server's own configuration."""

from __future__ import annotations

import ast
import pickle
import sys
from pathlib import Path

import pytest

import microsfl
from microsfl.config import SplitServerSettings
from microsfl.errors import MalformedMessage, MessageTooLarge, ModelNotAllowed
from microsfl.services import split_server
from microsfl.spec import RunSpec
from microsfl.store.objects import open_store
from microsfl.wire.messages import Forward
from microsfl.wire.tensors import decode

SOURCES = sorted(Path(microsfl.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"eval", "exec", "torch.load", "torch.save", "np.load", "numpy.load", "torch.jit.load"}


def forbidden(source: str) -> list[str]:
    """Names in `source` that could run what came from elsewhere."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [name for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            found.append(ast.unparse(node.func))
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append("allow_pickle")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_law_8_no_source_file_can_unpickle(path: Path) -> None:
    assert forbidden(path.read_text()) == []


@pytest.mark.parametrize("source", ["import pickle", "from joblib import load", "torch.load(f)", "eval('1')"])
def test_law_8_the_scan_finds_what_it_looks_for(source: str) -> None:
    assert forbidden(source)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return setattr, ("microsfl", "exploded")


@pytest.mark.parametrize("read", [decode, Forward.unpack])
def test_law_8_a_pickle_is_refused_as_malformed(read: object) -> None:
    with pytest.raises((MalformedMessage, MessageTooLarge)):
        read(pickle.dumps(Bomb()))  # type: ignore[operator]


def test_law_8_a_model_that_is_not_on_the_list_is_not_even_imported() -> None:
    server = split_server.SplitServer(SplitServerSettings(store_url="memory://"), open_store("memory://"))
    spec = RunSpec.parse({"model": {"name": "this.module:factory"}}).resolved(input_shape=(4,), classes=2)
    before = set(sys.modules)
    with pytest.raises(ModelNotAllowed, match=r"this\.module:factory"):
        server.prepare({"spec": spec.model_dump(mode="json")})
    assert "this" not in set(sys.modules) - before
    assert not list(server.store.list("runs"))
