"""`microsfl status`: one run, once or until it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

import click
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..launch.progress import line, outliers
from ..launch.readable import age, counted, plain, rounded
from .find import Asked, find_run
from .rows import Json
from .runs import console, reason_of, state_of
from .view import Seen, follow, look

ROUNDS = 8
CLIENTS = 20
FIXED = 14  # lines of a display that are not rounds and participants
WHAT_NEXT = {
    "failed": "`microsfl logs` shows why; `microsfl resume` goes on from the last commit.",
    "stopped": "`microsfl resume` goes on from the last commit.",
    "interrupted": "Its processes are gone; `microsfl resume` goes on from the last commit.",
    "unfinished": "A simulation tells nothing before its end; it may still be going on, or was stopped.",
}


def show_status(run: str, asked: Asked, *, follows: bool, as_json: bool) -> int:
    """Print how a run is; the exit code, which with `follows` is 1 when the run did not finish."""
    target = find_run(run, asked)
    if not follows:
        seen = look(target)
        _print(seen, as_json)
        return 0
    if as_json:
        for seen in follow(target):
            click.echo(json.dumps(seen.to_json()))
    else:
        seen = _watch(follow(target))
        _print(seen, as_json)
    return 0 if seen.run["state"] == "finished" else 1


def _watch(changes: Iterable[Seen]) -> Seen:
    """Show each change: drawn on a terminal, else in lines; the last of them."""
    shown = console()
    if not shown.is_terminal:
        return _lines(changes)
    with Live(console=shown, transient=True, auto_refresh=False) as live:
        for seen in changes:
            room = max(2, shown.height - FIXED)
            live.update(display(seen, rounds=min(ROUNDS, room // 2), clients=room // 2), refresh=True)
    return seen


def _lines(changes: Iterable[Seen]) -> Seen:
    """A line for each state and for each round that is over since."""
    state, rounds = "", -1
    for seen in changes:
        run = seen.run
        for result in run["history"][rounds:] if rounds >= 0 else []:
            click.echo(line(result, run["rounds"]))
        if run["state"] != state:
            click.echo(f"{run['name']}: {run['state']}")
        state, rounds = run["state"], len(run["history"])
    return seen


def _print(seen: Seen, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(seen.to_json(), indent=2))
    else:
        console().print(display(seen))


def display(seen: Seen, rounds: int = ROUNDS, clients: int = CLIENTS) -> Group:
    """A run as a person reads it, with at most so many of its rounds and clients."""
    row = seen.to_json()
    parts: list[RenderableType] = [_head(row)]
    if row["reason"]:
        parts.append(reason_of(row))
    if row["state"] in WHAT_NEXT and seen.folder is not None:
        parts.append(Text(WHAT_NEXT[row["state"]], style="dim"))
    if row["history"]:
        parts.append(_rounds(row["history"][-rounds:], row["rounds"]))
    if row["participants"]:
        parts.append(_participants(row["participants"], clients))
    elif row["processes"]:
        parts.append(_processes(row["processes"]))
    return Group(*parts)


def _head(row: Json) -> Table:
    head = Table.grid(padding=(0, 2))
    title = Text(row["name"], style="bold")
    head.add_row(title, state_of(row))
    if row["rounds"] is not None:
        bar = Table.grid(padding=(0, 2))
        done, rounds = row["rounds_done"], row["rounds"]
        bar.add_row(f"{done}/{rounds}", ProgressBar(total=rounds, completed=done, width=30))
        head.add_row("rounds", bar)
        head.add_row("accuracy", f"{rounded(row['accuracy'])}  loss {rounded(row['loss'])}")
        head.add_row("what", f"{row['strategy']} on {row['dataset']}, {counted(row['clients'], 'client')}")
    head.add_row("began", f"{age(time.time() - row['created_at'])} ago")
    head.add_row("where", "  ".join(one for one in (row["folder"], row["coordinator"]) if one))
    return head


def _rounds(history: list[Json], rounds: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("round", "accuracy", "loss", "train loss", "samples/s", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("outliers" if any(map(outliers, history)) else "")
    for one in history:
        speed, seconds = one["samples_per_s"], one["seconds"]
        table.add_row(
            f"{one['round'] + 1}/{rounds}",
            rounded(one["accuracy"]),
            rounded(one["loss"]),
            rounded(one["train_loss"]),
            "–" if speed is None else f"{speed:,.0f}",
            "–" if seconds is None else f"{seconds:.2f}",
            Text(outliers(one), style="yellow"),
        )
    return table


def _participants(participants: list[Json], most: int) -> Table:
    """Servers first; of many clients those who are waited for."""
    servers = [one for one in participants if one["role"] != "client"]
    clients = [one for one in participants if one["role"] == "client"]
    shown = sorted(clients, key=lambda one: (one["doing"] in ("done", "not in this round"), one["id"]))[:most]
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("participant", "role", "doing", "heard of", "address", ""):
        table.add_column(name, justify="right" if name == "heard of" else "left")
    for one in (*servers, *sorted(shown, key=lambda one: str(one["id"]))):
        style = "" if one["alive"] else "red"
        seen = f"{age(time.time() - one['last_seen'])} ago"
        stood_out = one["outlier_in"]
        note = "" if stood_out is None else Text(f"outlier in round {stood_out + 1}", style="yellow")
        table.add_row(one["id"], one["role"], plain(one["doing"]), seen, plain(one["address"] or ""), note, style=style)
    if len(clients) > len(shown):
        table.add_row(f"… {len(clients) - len(shown)} more clients")
    return table


def _processes(processes: list[Json]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("process", "role", "state", "exit code", "restarts"):
        table.add_column(name, justify="right" if name in ("exit code", "restarts") else "left")
    for one in processes:
        code = "–" if one["exit_code"] is None else str(one["exit_code"])
        table.add_row(one["name"], one["role"], one["state"], code, str(one["restarts"]))
    return table
