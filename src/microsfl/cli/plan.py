"""The command that says what a run will take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..capacity.options import plan_options
from .group import cli
from .options import ASSIGNMENTS, CONFIG

if TYPE_CHECKING:
    from ..launch.forks import Forks


@cli.command()
@CONFIG
@ASSIGNMENTS
@plan_options
def plan(config: Path | None, assignments: tuple[str, ...], **options: Any) -> None:
    """Say what a run will take, before it runs: time, bytes, files, split servers, memory, money.

    Settings come from CONFIG (TOML) and --set, as for `microsfl run`. What the model's parts, the services and the
    store take is measured on this machine with two short runs, unless --calibration or --from-run has it.

    With --replicas auto and neither --round-within nor --utilisation, split servers are to be busy 70 % of the time.
    """
    from ..capacity.command import Asked, plan
    from ..launch.spec_file import read_spec

    forks: Forks | None = click.get_current_context().obj
    plan(read_spec(config, assignments), Asked(**options), forks)
