"""What `microsfl resume` goes on with: the specification, the stores and the folder of a run that was begun before."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidSetting, RunNotFound
from ..spec import RunSpec
from ..store.objects import ObjectStore, open_store
from ..store.options import below
from ..store.s3 import area_environment
from ..sync.runs import load_run, runs_in
from .spec_file import read_spec


@dataclass(frozen=True)
class Begun:
    """A run that was begun. folder: its run folder; None to make a new one."""

    spec: RunSpec
    folder: Path | None


def find(target: str, client_store: str | None, run: str | None, path: str | None) -> Begun:
    """The run to go on with.

    Args:
        target: a run folder, or the URL of the body area, or of a folder that has both areas as body/ and client/.
        client_store: URL of the client area, when it stands elsewhere.
        run: its name, when the store holds several.
        path: folder of the data set's files on this machine, when it is not where the run folder says.

    Raises:
        InvalidSetting: when the target is neither, or it is not clear which run is meant.
        RunNotFound: when there is no such run.
        StoreCorrupt: when its specification cannot be read.
    """
    if "://" not in target:
        return _in_folder(Path(target), run, path)
    body = target
    names = runs_in(_body_store(body))
    if not names and client_store is None:
        body, client_store = below(target, "body"), below(target, "client")
        names = runs_in(_body_store(body))
    if client_store is None:
        raise InvalidSetting(f"{target} is a body area; give the URL of the client area too, with --client-store.")
    spec = load_run(_body_store(body), _choose(names, run, target))
    store = spec.store.model_copy(update={"body": body, "client": client_store})
    return Begun(_with_path(spec.model_copy(update={"store": store}), path), None)


def _body_store(url: str) -> ObjectStore:
    return open_store(url, area_environment("body", os.environ))


def _with_path(spec: RunSpec, path: str | None) -> RunSpec:
    return spec if path is None else spec.model_copy(update={"data": spec.data.model_copy(update={"path": path})})


def _in_folder(folder: Path, run: str | None, path: str | None) -> Begun:
    file = folder / "run.toml"
    if not file.is_file():
        raise InvalidSetting(f"{folder} is not a run folder: it has no run.toml. Name one, or the URL of a store.")
    spec = _with_path(read_spec(file, ()), path)
    return Begun(spec, folder) if run in (None, spec.run.name) else _no(run, [spec.run.name], str(folder))


def _choose(names: list[str], run: str | None, where: str) -> str:
    if run is not None and run not in names:
        _no(run, names, where)
    if run is None and len(names) != 1:
        raise InvalidSetting(
            f"{where} holds {len(names)} runs" + (f" ({', '.join(names)}); say which with --run." if names else ".")
        )
    return run or names[0]


def _no(run: str | None, names: list[str], where: str) -> Begun:
    raise RunNotFound(f"There is no run '{run}' in {where}; it has {', '.join(names) or 'none'}.")
