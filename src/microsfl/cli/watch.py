"""The commands that look at runs: runs, status and logs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .completing import complete_role, complete_run
from .group import cli
from .options import CREDENTIAL, calls_a_coordinator

if TYPE_CHECKING:
    from ..watch.find import Asked

Result = TypeVar("Result")

AT = click.option(
    "--coordinator",
    metavar="URL",
    envvar="MICROSFL_COORDINATOR",
    show_envvar=True,
    help="Coordinator to ask; default: http://localhost:8000, where there may be none.",
)
FOLDERS = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="runs",
    show_default=True,
    metavar="DIR",
    help="Where the run folders are.",
)
RUN = click.argument("run", metavar="RUN", shell_complete=complete_run)


def asking(function: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a command with the options that say where to look; it gets them as `asked`."""

    @wraps(function)
    def ask(*, coordinator: str | None, credential: str | None, folder: Path, **given: Any) -> Result:
        from ..watch.find import Asked

        return function(asked=Asked(coordinator, folder, credential), **given)

    return AT(CREDENTIAL(FOLDERS(ask)))


@cli.command()
@asking
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@calls_a_coordinator
def runs(asked: Asked, as_json: bool) -> None:
    """List runs: those of a coordinator and those in run folders.

    With state, rounds, accuracy and age, newest first. A coordinator that is named and does not answer is an error.
    """
    from ..watch.runs import list_runs

    list_runs(asked, as_json=as_json)


@cli.command()
@RUN
@asking
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends; exits with 1 when it did not finish.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --follow a line for each change.")
@calls_a_coordinator
def status(run: str, asked: Asked, follow: bool, as_json: bool) -> int:
    """Show one run: rounds, accuracies, and who is doing what.

    RUN is a run folder, or the name of one in --folder; or the name of a run at the coordinator, or else of one in the
    run folders, of which the newest is shown.
    """
    from ..watch.status import show_status

    return show_status(run, asked, follows=follow, as_json=as_json)


@cli.command()
@RUN
@click.argument("role", metavar="[ROLE]", required=False, shell_complete=complete_role)
@asking
@click.option("--follow", "-f", is_flag=True, help="Go on until every process has ended.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="debug",
    show_default=True,
    help="Least severe line. What is no log line, as a traceback, is always shown.",
)
@click.option("--last", "-n", type=click.IntRange(min=0), metavar="N", help="Only the last N lines; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, with the name of the process.")
@calls_a_coordinator
def logs(
    run: str,
    role: str | None,
    asked: Asked,
    follow: bool,
    level: str,
    last: int | None,
    as_json: bool,
) -> None:
    """Show what the processes of a run have logged, merged by time.

    RUN is a run folder, that of `microsfl up`, or the name of a run in one of them. ROLE is a role or the name of one
    process, as in split-server or split-server-1. Times are UTC.
    """
    from ..watch.logs import Wanted, show_logs

    show_logs(run, asked, Wanted(role, level, last, follow, as_json))
