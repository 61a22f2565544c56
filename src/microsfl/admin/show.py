"""Identities and invitations, as a terminal shows them."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .people import Json

PIPE_WIDTH = 160  # of what is not printed to a terminal
STYLES = {"enrolled": "green", "invited": "yellow", "revoked": "red"}


def print_invitation(given: Json, coordinator: str, *, as_json: bool) -> None:
    """The token alone on standard output, so that it can be piped; what to do with it on standard error."""
    if as_json:
        click.echo(json.dumps({**given, "coordinator": coordinator}, indent=2))
        return
    until = f"{given['role']} until {moment(given['expires_at'])}"
    click.echo(f"'{given['id']}' is invited as {until}. The token, which is shown once:", err=True)
    click.echo(given["token"])
    click.echo("On its machine this asks for the token, and writes the credential:", err=True)
    click.echo(f"  microsfl enrol --coordinator {shlex.quote(coordinator)}", err=True)


def print_identities(found: Sequence[Json], *, as_json: bool) -> None:
    """Who may take part, by id."""
    if as_json:
        click.echo(json.dumps({"identities": list(found)}, indent=2))
        return
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("id", "role", "state", "acts as", "runs", "since"):
        table.add_column(name, overflow="fold")
    for one in found:
        state = state_of(one)
        since = one["revoked_at"] if state == "revoked" else one["created_at"]
        acts_as = "–" if one["role"] not in ("client", "split-server") else _names(one["acts_as"])
        cells = [one["id"], one["role"], Text(state, STYLES[state]), acts_as, _names(one["runs"]), moment(since)]
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    console.width = max(console.width, 0 if console.is_terminal else PIPE_WIDTH)
    console.print(table)


def state_of(identity: Json) -> str:
    if identity["enrolled"]:
        return "enrolled"
    return "revoked" if identity["revoked_at"] is not None else "invited"


def moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _names(found: Sequence[str]) -> str:
    return "all" if "*" in found else ", ".join(found)
