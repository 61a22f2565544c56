"""`microsfl runs`: the runs of a coordinator and of run folders."""

from __future__ import annotations

import json
import time

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import MicrosflError
from ..launch.readable import age, plain, rounded
from .find import Asked
from .folder import SeenFolder, run_folders
from .rows import COLUMNS, Json, row_of

STYLES = {
    "finished": "green", "running": "cyan", "waiting": "yellow", "starting": "yellow", "created": "yellow",
    "failed": "red", "stopped": "red", "interrupted": "red", "unreadable": "red",
    "unfinished": "yellow",
}  # fmt: skip
PIPE_WIDTH = 160  # of what is not printed to a terminal


def list_runs(asked: Asked, *, as_json: bool) -> None:
    """Print the runs, newest first.

    Raises:
        Unreachable: when the coordinator that was named does not answer.
    """
    there = asked.runs()
    rows = [row_of(one, coordinator=asked.url) for one in there or []]
    rows += [_row_of_folder(one) for one in run_folders(asked.folder)]
    rows.sort(key=lambda row: row["created_at"], reverse=True)
    if as_json:
        answers = asked.url if there is not None else None
        click.echo(json.dumps({"coordinator": answers, "runs": rows}, indent=2))
        return
    if rows:
        console().print(_table(rows))
    else:
        click.echo(f"No runs in {asked.folder}/" + ("." if there is None else f" and none at {asked.url}."))
    if there is None:
        click.echo(f"No coordinator answers at {asked.url}; --coordinator names another.", err=True)


def _row_of_folder(folder: SeenFolder) -> Json:
    try:
        return row_of(folder.run(), folder=folder.path)
    except MicrosflError as error:
        about = {"name": folder.path.name, "state": "unreadable", "reason": str(error), "folder": str(folder.path)}
        return {**dict.fromkeys(COLUMNS), **about, "created_at": (folder.path / "run.toml").stat().st_mtime}


def _table(rows: list[Json]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("run", "state", "rounds", "accuracy", "loss", "strategy", "dataset", "clients", "age", "where"):
        numeric = name in ("rounds", "accuracy", "loss", "clients", "age")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in rows:
        table.add_row(
            row["name"],
            state_of(row),
            "–" if row["rounds"] is None else f"{row['rounds_done']}/{row['rounds']}",
            rounded(row["accuracy"]),
            rounded(row["loss"]),
            row["strategy"],
            row["dataset"],
            "–" if row["clients"] is None else str(row["clients"]),
            age(time.time() - row["created_at"]),
            row["coordinator"] or row["folder"],
        )
    return table


def state_of(row: Json) -> Text:
    """In colour; with what is done just now, where something is."""
    phase = f", {row['phase']}" if row["phase"] else ""
    return Text(f"{row['state']}{phase}", style=STYLES.get(row["state"], ""))


def reason_of(row: Json) -> Text:
    return Text(plain(row["reason"] or ""), style="red")


def console() -> Console:
    """For standard output."""
    found = Console()
    return found if found.is_terminal else Console(width=PIPE_WIDTH)
