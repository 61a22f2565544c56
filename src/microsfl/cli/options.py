"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from ..tracking import TRACKERS
from .completing import complete_setting

ASSIGNMENTS = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_setting,
    help="Override one setting, as in --set run.rounds=10. May be repeated.",
)
OUTPUT = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Run folder, new or empty; default: runs/NAME-DATE-TIME.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of the table.")
TRACK = click.option(
    "--track",
    multiple=True,
    type=click.Choice(TRACKERS),
    help="Write the run's figures there too, while it lives. May be repeated.",
)
CONFIG = click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
