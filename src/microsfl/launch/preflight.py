"""What can be known to be wrong with a run before torch is imported or a process is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import DatasetNotFound, InvalidSetting, RunExists, StoreNotWritable, StoreUnavailable
from ..spec import RunSpec
from ..store.objects import open_store
from ..sync import keys
from ..zoo.datasets import describe

PATIENCE_S = 5.0  # how long to go on trying a store that does not answer


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


def check_store(url: str, run: str, setting: str, environment: Mapping[str, str] | None = None) -> None:
    """Make sure that processes can share the store, that it can be used, and that it does not hold `run` yet.

    Args:
        environment: of the processes that will open it; default: this process's.

    Raises:
        InvalidSetting, StoreNotWritable, RunExists.
    """
    if url == "memory://":
        raise InvalidSetting(
            f"{setting} = 'memory://' lives in one process only; use file:///absolute/folder, s3://bucket/prefix "
            "or auto."
        )
    store = open_store(url, environment)
    try:
        store.probe(within_s=PATIENCE_S)
        exists = store.exists(keys.spec(run))
    except StoreUnavailable as error:  # before a run, a store that is away is most likely a wrong address
        raise StoreNotWritable(f"{setting} = '{url}': {error}") from None
    if exists:
        raise RunExists(f"{setting} = '{url}' already holds a run '{run}'; choose another run.name or another store.")
