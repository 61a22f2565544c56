"""What can be known to be wrong with a run before torch is imported or a process is started."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import (
    DatasetNotFound,
    InvalidSetting,
    OperationError,
    RunExists,
    StoreNotWritable,
    StoreUnavailable,
)
from ..spec import RunSpec
from ..store.objects import open_store
from ..sync import keys
from ..zoo.datasets import describe
from ..zoo.deal import OWN, own_data
from ..zoo.front_file import read_front

if TYPE_CHECKING:
    from ..zoo.datasets import Data

PATIENCE_S = 5.0  # how long to go on trying a store that does not answer


def check_matplotlib(what_draws: str) -> None:
    """Raises OperationError when there is no matplotlib. what_draws: as in "the audit draws its pictures"."""
    if importlib.util.find_spec("matplotlib") is None:
        raise OperationError(f"{what_draws} with matplotlib: pip install 'microsfl[run]'.")


def resolve(spec: RunSpec, data: Data | None = None) -> RunSpec:
    """The specification with every `auto` that decides a result replaced by its value.

    Args:
        data: what the specification names, where it is loaded already.

    Raises:
        DatasetNotFound, InvalidSetting: when the data set, or the file of the front's weights, cannot be had.
    """
    path = spec.data.path
    if path is not None and not Path(path).exists():
        raise DatasetNotFound(
            f"data.path = '{path}' is not there. Give the folder of the data set's files, or leave data.path out."
        )
    input_shape, classes = _described(spec) if data is None else (data.input_shape, data.classes)
    resolved = _with_front_sha256(spec).resolved(input_shape=input_shape, classes=classes)
    if spec.strategy.unit == "auto" and resolved.strategy.unit != 1:
        from ..zoo.parts import activation_bytes  # torch, for the few runs that need it here

        resolved = resolved.with_units_of(activation_bytes(resolved))
    return resolved


def _described(spec: RunSpec) -> tuple[tuple[int, ...], int]:
    """Shape of a sample and number of classes. The data is not looked at where the specification says both."""
    shape, classes = spec.model.input_shape, spec.model.classes
    if shape != "auto" and classes != "auto":
        return shape, classes
    if spec.data.partition != OWN:
        return describe(spec.data.dataset, spec.data.path)
    found = own_data(spec)  # a client may lack the highest classes
    return found[0].input_shape, max(data.classes for data in found)


def _with_front_sha256(spec: RunSpec) -> RunSpec:
    path, wanted = spec.model.front_weights, spec.model.front_sha256
    if path is None:
        return spec
    _, found = read_front(path)
    if wanted not in (None, found):
        raise InvalidSetting(f"model.front_weights = '{path}' has sha256 {found}; model.front_sha256 says {wanted}.")
    return spec.model_copy(update={"model": spec.model.model_copy(update={"front_sha256": found})})


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
