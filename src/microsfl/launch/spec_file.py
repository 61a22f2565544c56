"""A run's specification as a TOML file, which is how people write and keep it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w

from ..schema import assign
from ..spec import RunSpec
from .options import read_toml


def read_spec(file: Path | None, assignments: Iterable[str] = ()) -> RunSpec:
    """The specification in `file` (none: the defaults) with `key=value` assignments on top.

    Raises:
        UnknownSetting, InvalidSetting: naming what is wrong and what would be right.
    """
    values = read_toml(file) if file is not None else {}
    for assignment in assignments:
        assign(values, assignment)
    return RunSpec.parse(values)


def to_toml(spec: RunSpec) -> str:
    """TOML that `read_spec` turns into an equal specification."""
    return tomli_w.dumps(_without_none(spec.model_dump(mode="json")))


def _without_none(value: Any) -> Any:
    """TOML has no null: a setting that is not there has its default, which is None wherever None is allowed."""
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return value
