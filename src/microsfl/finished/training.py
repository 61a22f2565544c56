"""`microsfl.run`: what the command of that name does, for a notebook or a script."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ..launch.options import read_toml
from ..launch.training import train
from ..schema import place
from ..simulate.training import train as simulated
from ..spec import RunSpec
from .run import Run

Specification = RunSpec | Mapping[str, Any] | str | PathLike[str] | None


def run(
    spec: Specification = None,
    *,
    set: Mapping[str, Any] | None = None,
    simulate: bool = False,
    output: str | PathLike[str] | None = None,
) -> Run:
    """Train on this machine, and return the finished run. What happens shows on standard error, a line a round.

        microsfl.run(set={"run.rounds": 5, "strategy.name": "sflv1"}).metrics

    Starts all roles as processes and ends them again, also when it is interrupted. Models and data sets of your own are
    named by their import path, as other processes import them too: they stand in a module, not in the notebook.

    Args:
        spec: a `RunSpec`, nested tables, the path of a TOML file, or None for the defaults.
        set: single settings on top, by their names: {"run.rounds": 5}.
        simulate: in this process, without servers or a store. The weights are the same, unless they depend on who is
            first (strategy.sync = K) or noise is private.
        output: run folder, new or empty; default: runs/NAME-DATE-TIME.

    Raises:
        InputError: when something is wrong with the specification or the folder.
        RunFailed: when the run ends before its last round. Everything that was written stays.
    """
    chosen, folder = specification(spec, set or {}), None if output is None else Path(output)
    if simulate:
        return Run(simulated(chosen, folder)[2])
    return Run(train(chosen, folder)[2])


def specification(spec: Specification, settings: Mapping[str, Any]) -> RunSpec:
    """The specification with single settings on top.

    Raises:
        UnknownSetting, InvalidSetting: naming what is wrong and what would be right.
    """
    if spec is None:
        values: dict[str, Any] = {}
    elif isinstance(spec, RunSpec):
        values = spec.model_dump(mode="json", exclude_unset=True)
    elif isinstance(spec, Mapping):
        values = copy.deepcopy(dict(spec))
    else:
        values = read_toml(Path(spec))
    for key, value in settings.items():
        place(values, key, value)
    return RunSpec.parse(values)
