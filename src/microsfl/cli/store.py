"""The commands that look after a store: verify and gc; and profile, which reads what a run left behind."""

from __future__ import annotations

from pathlib import Path

import click

from .completing import complete_folder
from .group import cli

TARGETS = click.argument("targets", metavar="TARGET...", nargs=-1, required=True, shell_complete=complete_folder)
ONE_RUN = click.option("--run", "run", metavar="NAME", help="Only this run; default: every run in the stores.")


@cli.command()
@TARGETS
@ONE_RUN
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
def verify(targets: tuple[str, ...], run: str | None, as_json: bool) -> int:
    """Check every file of a run: hashes, commits, contributions.

    TARGET is a run folder or the URL of a store. Each finding says what was expected, what was found and what to do.
    Exits with 1 when a file is damaged or missing; what is harmless is a note. Changes nothing.
    """
    from ..launch.maintenance import verify_stores

    return verify_stores(targets, run, as_json=as_json)


@cli.command()
@TARGETS
@ONE_RUN
@click.option("--keep", type=int, default=2, show_default=True, help="Keep what the newest N rounds work with.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Print every removed file as JSON.")
def gc(targets: tuple[str, ...], run: str | None, keep: int, dry_run: bool, as_json: bool) -> None:
    """Remove files that no resume and no retry needs any more.

    TARGET is a run folder or the URL of a store. The run may be going on meanwhile.
    """
    from ..launch.maintenance import collect_garbage

    collect_garbage(targets, run, keep, dry_run=dry_run, as_json=as_json)


@cli.command()
@click.argument("folder", metavar="RUN_FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it: .png, .svg, .pdf."
)
@click.option("--json", "as_json", is_flag=True, help="Print all the numbers as JSON.")
def profile(folder: Path, plot: Path | None, as_json: bool) -> None:
    """Show where the time of a run went.

    Of each client, split server and fed server, and of each round: computing, waiting, wire, queue, store.
    """
    from ..profile.command import profile as show

    show(folder, plot, as_json=as_json)
