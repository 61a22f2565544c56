"""What `microsfl profile` does."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from ..errors import InvalidSetting, StoreNotWritable
from ..launch.preflight import check_matplotlib
from ..launch.profile_rows import read_rows
from .report import tables
from .summary import summarize

PICTURES = (".png", ".svg", ".pdf")


def profile(folder: Path, plot: Path | None, *, as_json: bool) -> None:
    """Print the profile of a run folder, and draw it.

    Raises:
        InvalidSetting: when the folder has none, or the picture's name is not that of one.
        OperationError: when there is no matplotlib to draw with.
        StoreNotWritable: when the picture cannot be written.
    """
    if plot is not None:
        check_matplotlib("`microsfl profile --plot` draws")
        if plot.suffix.lower() not in PICTURES:
            raise InvalidSetting(f"--plot {plot}: name a file that ends in {', '.join(PICTURES)}.")
    found = summarize(read_rows(folder))
    if not (found.clients or found.servers or found.rounds):
        raise InvalidSetting(f"The profile in {folder} is empty: no client had reported anything when its run ended.")
    if plot is not None:
        from .picture import draw

        try:
            draw(found).savefig(plot)
        except OSError as error:
            raise StoreNotWritable(f"{plot} cannot be written: {error.strerror}.") from None
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    console = Console()
    for number, table in enumerate(tables(found)):
        console.print(*[""] * bool(number), table, sep="\n")
