"""What can be known to be wrong with a run before torch is imported or a process is started."""

from __future__ import annotations

from pathlib import Path

from ..errors import DatasetNotFound, InvalidSetting, RunExists
from ..spec import RunSpec
from ..store.objects import open_store
from ..sync import keys
from ..zoo.datasets import describe


def resolve(spec: RunSpec) -> RunSpec:
    """The specification with every `auto` that decides a result replaced by its value.

    Raises:
        DatasetNotFound, InvalidSetting: when the data set cannot be had.
    """
    path = spec.data.path
    if path is not None and not Path(path).exists():
        raise DatasetNotFound(
            f"data.path = '{path}' is not there. Give the folder of the data set's files, or leave data.path out."
        )
    input_shape, classes = describe(spec.data.dataset, path)
    return spec.resolved(input_shape=input_shape, classes=classes)


def check_store(url: str, run: str, setting: str) -> None:
    """Make sure that processes can share the store, that it can be written, and that it does not hold `run` yet.

    Raises:
        InvalidSetting, StoreNotWritable, RunExists.
    """
    if url == "memory://":
        raise InvalidSetting(f"{setting} = 'memory://' lives in one process only; use file:///absolute/folder or auto.")
    store = open_store(url)
    store.probe()
    if store.exists(keys.spec(run)):
        raise RunExists(f"{setting} = '{url}' already holds a run '{run}'; choose another run.name or another store.")
