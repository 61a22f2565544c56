"""The group `audit`: verify and show the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .group import cli


def where(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which trail."""
    for option in (
        click.option(
            "--credential", metavar="FILE", help="Credential of an operator; default: the one kept for the coordinator."
        ),
        click.option(
            "--records-url",
            metavar="URL",
            help="Read this database instead of asking the coordinator; changes nothing.",
        ),
        click.option(
            "--coordinator",
            metavar="URL",
            envvar="MICROSFL_COORDINATOR",
            show_envvar=True,
            default="http://127.0.0.1:8000",
            show_default=True,
            help="Coordinator to ask.",
        ),
    ):
        command = option(command)
    return command


@cli.group()
def audit() -> None:
    """Check and show the audit trail: who did what when."""


@audit.command()
@where
@click.option("--head", metavar="HASH", help="Hash that an earlier `verify` printed: it must still be in the trail.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(coordinator: str, records_url: str | None, credential: str | None, head: str | None, as_json: bool) -> int:
    """Check that no entry was changed, inserted or taken out.

    Prints how many entries there are and the hash of the last one. Keep it elsewhere: with --head it shows that
    the trail was neither written anew nor cut off since. Exits with 1 when the trail is broken.
    """
    from ..trail import command

    return command.verify(command.Where(coordinator, records_url, credential), head, as_json=as_json)


@audit.command()
@where
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only entries with a number above.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each entry.")
def show(coordinator: str, records_url: str | None, credential: str | None, after: int, as_json: bool) -> None:
    """Show the entries, oldest first. Times are UTC."""
    from ..trail import command

    command.show(command.Where(coordinator, records_url, credential), after, as_json=as_json)
