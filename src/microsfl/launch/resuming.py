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
from .run_folder import SIMULATED
from .spec_file import read_spec


@dataclass(frozen=True)
class Begun:
    """A run that was begun. folder: its run folder; None to make a new one."""

    spec: RunSpec
    folder: Path | None


def find(
    target: str, client_store: str | None, run: str | None, path: str | None, front_weights: str | None = None
) -> Begun:
    """The run to go on with.

    Args:
        target: a run folder, or the URL of a folder that has the run's areas as body/ and client/, or of its body area,
            or of its client area if the strategy has no other.
        client_store: URL of the client area, when it stands elsewhere.
        run: its name, when the store holds several.
        path: folder of the data set's files on this machine, when it is not where the run folder says.
        front_weights: file that the run's front began with, when it is not where the run folder says; no store knows.

    Raises:
        InvalidSetting: when the target is neither, or it is not clear which run is meant, or the run was simulated.
        RunNotFound: when there is no such run.
        StoreCorrupt: when its specification cannot be read.
    """
    if "://" not in target:
        return _in_folder(Path(target), run, path, front_weights)
    spec = _in_stores(target, client_store, run)
    return Begun(_with_paths(spec, path, front_weights), None)


def _in_stores(target: str, client_store: str | None, run: str | None) -> RunSpec:
    """The run's specification, with the URLs of the areas that it has."""
    places = {"body": target, "client": client_store or target}
    if client_store is None and not runs_in(_open("body", target)):
        places = {area: below(target, area) for area in places}
    # A run that does not cut its model has no body area; every other run that can be here has one.
    stores = {area: _open(area, url) for area, url in places.items()}
    names = {area: runs_in(store) for area, store in stores.items()}
    name = _choose(sorted({*names["body"], *names["client"]}), run, target)
    spec = load_run(stores["body" if name in names["body"] else "client"], name)
    if not spec.strategy.traits.split:
        del places["body"]
    elif places["body"] == places["client"]:
        raise InvalidSetting(f"{target} is a body area; give the URL of the client area too, with --client-store.")
    return spec.model_copy(update={"store": spec.store.model_copy(update=places)})


def _open(area: str, url: str) -> ObjectStore:
    return open_store(url, area_environment(area, os.environ))


def _with_paths(spec: RunSpec, path: str | None, front_weights: str | None) -> RunSpec:
    if front_weights is not None and spec.model.front_sha256 is None:
        raise InvalidSetting(f"Run '{spec.run.name}' began without a file for its front: leave --front-weights out.")
    data = spec.data.model_copy(update={} if path is None else {"path": path})
    model = spec.model.model_copy(update={} if front_weights is None else {"front_weights": front_weights})
    return spec.model_copy(update={"data": data, "model": model})


def _in_folder(folder: Path, run: str | None, path: str | None, front_weights: str | None) -> Begun:
    file = folder / "run.toml"
    if not file.is_file():
        raise InvalidSetting(f"{folder} is not a run folder: it has no run.toml. Name one, or the URL of a store.")
    if (folder / SIMULATED).is_file():
        raise InvalidSetting(f"The run in {folder} was simulated: nothing was kept to go on with. Simulate it again.")
    spec = _with_paths(read_spec(file, ()), path, front_weights)
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
