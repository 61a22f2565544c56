"""Which run `microsfl resume` goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from microsfl.errors import InputError, InvalidSetting, RunNotFound, StoreCorrupt, UnsupportedFormat
from microsfl.launch.admission import LocalFederation
from microsfl.launch.resuming import find
from microsfl.launch.spec_file import to_toml
from microsfl.spec import RunSpec
from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.sync.runs import create_run


def spec(name: str = "a") -> RunSpec:
    return RunSpec.parse({"run": {"name": name}, "data": {"path": "/there"}})


@pytest.fixture
def store(tmp_path: Path) -> str:
    """URL of a folder with both areas, with the runs a and b."""
    for area in ("body", "client"):
        for name in ("a", "b"):
            create_run(open_store(f"file://{tmp_path}/store/{area}"), spec(name))
    return f"file://{tmp_path}/store"


def test_a_run_folder_is_resumed_in_place(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(to_toml(spec()))
    assert find(str(tmp_path), None, None, None) == find(str(tmp_path), None, "a", None)
    begun = find(str(tmp_path), None, None, None)
    assert (begun.spec, begun.folder) == (spec(), tmp_path)
    assert find(str(tmp_path), None, None, "/here").spec.data.path == "/here"


def test_a_store_gives_the_specification_and_becomes_the_run_s_store(store: str) -> None:
    for target, client_store in ((store, None), (f"{store}/", None), (f"{store}/body", f"{store}/client")):
        begun = find(target, client_store, "b", "/here")
        assert begun.folder is None
        assert begun.spec.run.name == "b"
        assert (begun.spec.store.body, begun.spec.store.client) == (f"{store}/body", f"{store}/client")
        assert begun.spec.data.path == "/here"
        assert begun.spec.decisive == spec("b").decisive


def test_a_run_without_a_cut_has_a_client_area_alone(tmp_path: Path) -> None:
    whole = RunSpec.parse({"run": {"name": "whole"}, "strategy": {"name": "fedavg"}})
    url = f"file://{tmp_path}/store"
    create_run(open_store(f"{url}/client"), whole)
    for target, client_store in ((url, None), (f"{url}/client", None), (f"{url}/body", f"{url}/client")):
        begun = find(target, client_store, None, None)
        assert begun.spec.decisive == whole.decisive
        assert (begun.spec.store.body, begun.spec.store.client) == ("auto", f"{url}/client")


def test_the_file_of_a_front_is_named_anew_as_no_store_knows_where_it_is(tmp_path: Path) -> None:
    model = {"front_weights": "/there/front.safetensors", "front_sha256": "0" * 64}
    begun = RunSpec.parse({"run": {"name": "a"}, "model": model})
    for area in ("body", "client"):
        create_run(open_store(f"file://{tmp_path}/store/{area}"), begun)
    (tmp_path / "run.toml").write_text(to_toml(begun))
    for target in (str(tmp_path), f"file://{tmp_path}/store"):
        found = find(target, None, None, None, "/here/front.safetensors").spec
        assert (found.model.front_weights, found.decisive) == ("/here/front.safetensors", begun.decisive)
    assert find(str(tmp_path), None, None, None).spec == begun


def test_the_processes_of_a_resumed_run_look_where_its_files_are_now(tmp_path: Path) -> None:
    from microsfl.launch.federation import Federation

    federation = Federation(RunSpec.parse({"store": {"client": "memory://"}}), tmp_path / "run", resume=True)
    federation.coordinator = "http://127.0.0.1:1"
    model = federation.spec.model.model_copy(update={"front_weights": "/here/front.safetensors"})
    data = federation.spec.data.model_copy(update={"path": "/here"})
    federation.spec = federation.spec.model_copy(update={"model": model, "data": data})
    local = LocalFederation("demo")
    client = federation._client(("client-00",), local.credential("clients-0"))
    assert (client.path, client.front_weights) == ("/here", "/here/front.safetensors")
    assert federation._fed_server(local).front_weights == "/here/front.safetensors"
    local.close()


def wrong(kind: type[InputError] | type[StoreCorrupt], words: str, *arguments: Any) -> None:
    with pytest.raises(kind, match=words):
        find(*arguments)


def test_what_is_unclear_or_not_there_is_named(store: str, tmp_path: Path) -> None:
    wrong(InvalidSetting, "no run.toml", str(tmp_path / "nowhere"), None, None, None)
    wrong(InvalidSetting, r"2 runs \(a, b\); say which with --run", store, None, None, None)
    wrong(RunNotFound, "no run 'c' in .*; it has a, b", store, None, "c", None)
    wrong(InvalidSetting, "holds 0 runs", f"file://{tmp_path}/empty", None, None, None)
    wrong(InvalidSetting, "--client-store", f"{store}/body", None, "a", None)
    wrong(InvalidSetting, "--front-weights", store, None, "a", None, "front.safetensors")
    (tmp_path / "run.toml").write_text(to_toml(spec()))
    wrong(RunNotFound, "no run 'z'", str(tmp_path), None, "z", None)


def test_a_damaged_specification_is_refused(store: str) -> None:
    open_store(f"{store}/body").put(keys.spec("a"), b'{"format": 1, "spec": 3}')
    wrong(StoreCorrupt, r"runs/a/run\.json", store, None, "a", None)
    open_store(f"{store}/body").put(keys.spec("a"), b'{"format": 7}')
    wrong(UnsupportedFormat, "stored in format 7", store, None, "a", None)
