"""The command that checks a machine."""

from __future__ import annotations

import click

from .group import cli
from .options import calls_a_coordinator


@cli.command()
@click.option(
    "--store-url",
    "stores",
    multiple=True,
    metavar="URL",
    envvar="MICROSFL_STORE_URL",
    show_envvar=True,
    help="Store to check. May be repeated.",
)
@click.option(
    "--records-url",
    metavar="URL",
    envvar="MICROSFL_RECORDS_URL",
    show_envvar=True,
    help="Database of a coordinator to check; nothing is made or migrated.",
)
@click.option(
    "--coordinator",
    metavar="URL",
    envvar="MICROSFL_COORDINATOR",
    show_envvar=True,
    help="Coordinator to reach; default: http://localhost:8000, where there may be none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
@calls_a_coordinator
def doctor(stores: tuple[str, ...], records_url: str | None, coordinator: str | None, as_json: bool) -> int:
    """Check this machine, and say what to do.

    Python, torch and its device, extras, ports, disk, limits, the folder that you are in; with the options also
    stores, a database, and a coordinator with its clock. Exits with 1 when there is a problem. Leaves nothing behind.
    """
    from ..doctor.command import Asked, examine

    return examine(Asked(stores, records_url, coordinator), as_json=as_json)
