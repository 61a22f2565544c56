"""The command `microsfl up`, as click declares it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .forks import Forks


def _names(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for value in given for part in value.split(",") if part.strip())


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="microsfl-data",
    show_default=True,
    metavar="DIR",
    help="Runs, stores and logs; what an earlier `up` left there is gone on with.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port of the coordinator and its dashboard; 0 takes a free one.",
)
@click.option("--split", type=click.IntRange(1, 64), default=2, show_default=True, help="Split servers.")
@click.option("--clients", type=click.IntRange(1, 1000), default=5, show_default=True, help="Clients.")
@click.option(
    "--allow-models",
    multiple=True,
    callback=_names,
    metavar="TEXT[,…]",
    help="Model factories of your own (package.module:function) that runs may name. May be repeated.",
)
@click.option(
    "--allow-datasets",
    multiple=True,
    callback=_names,
    metavar="TEXT[,…]",
    help="Data set functions of your own (package.module:function) that runs may name. May be repeated.",
)
@click.pass_obj
def up(
    forks: Forks | None,
    folder: Path,
    port: int,
    split: int,
    clients: int,
    allow_models: tuple[str, ...],
    allow_datasets: tuple[str, ...],
) -> None:
    """Start all roles on this machine, with a dashboard.

    The coordinator serves the dashboard, where runs are started and watched, at the URL that is printed. A process that
    ends is started again. Waits until Ctrl-C, which ends all and exits with 0; runs under way go on with the next `up`
    on the same folder.
    """
    from .standing import Options
    from .standing import up as stand

    stand(Options(folder, port, split, clients, allow_models, allow_datasets), forks)
