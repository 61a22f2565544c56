"""table.md and what the command prints at the end: the numbers of table.csv, for reading."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from ..launch.readable import counted
from .execute import FINISHED
from .grid import Cell

# A terminal has room for fewer columns than table.md.
NOT_PRINTED = ("best", "loss", "spread", "server FLOPs", "saved")
PRINTED_WIDTH = 110

Json = dict[str, Any]

ABOUT = """\
Accuracy and loss are of the last round, on the test samples of all clients, as mean ± standard deviation over the seeds
(best: the best round of each run). *Worst client* is the lowest accuracy of a client, *spread* the standard deviation
over the clients of a run, both averaged over the seeds. *Up* and *down* are the bytes of all clients together in a
round, evaluation included{saved}. FLOPs are those of a round's training, of one client on average and of all split
servers together, as torch counts matrix products and convolutions. *Spared* is the share of the training's FLOPs that
clients did not have to do.
"""
SAVED = "; *saved* is what an auxiliary head kept from being sent"
SIMULATED = "*Seconds* are those of a run's training and sync in one process on one thread, one client after another."
SERVICES = "*Seconds* are those of a run's training and sync with real processes on this machine."


def to_markdown(cells: Sequence[Cell], rows: Sequence[Json], results: Mapping[str, Json], how: str) -> str:
    """The content of table.md."""
    spec = cells[0].spec
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(cell.seed for cell in cells))
    lines = [
        "# Comparison",
        "",
        f"{spec.data.dataset}, model {spec.model.name}, seeds {seeds}; {how}.",
        "",
    ]
    for title, group in _grouped(rows):
        lines += [f"## {title}", "", *markdown_table(columns(group), [readable(row) for row in group]), ""]
    saved = SAVED if any(row["bytes_saved_per_round"] is not None for row in rows) else ""
    lines += [textwrap.fill(ABOUT.format(saved=saved), 120), "", SIMULATED if how == "simulated" else SERVICES, ""]
    lines += ["## Settings", "", *(f"- {line}" for line in settings_lines(cells)), ""]
    unfinished = unfinished_lines(cells, results)
    if unfinished:
        lines += ["## Not finished", "", *(f"- {line}" for line in unfinished), ""]
    dropped = dropped_lines(cells)
    if dropped:
        lines += ["## Left out", "", "Settings of the base that mean nothing for a method, which ran without them:", ""]
        lines += [*(f"- {line}" for line in dropped), ""]
    return "\n".join(lines)


def print_comparison(cells: Sequence[Cell], rows: Sequence[Json], results: Mapping[str, Json]) -> None:
    """The tables on standard output."""
    console = Console() if sys.stdout.isatty() else Console(width=PRINTED_WIDTH)
    for title, group in _grouped(rows):
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
        names = [name for name in columns(group) if name not in NOT_PRINTED]
        for name in names:
            whole = name in ("method", "accuracy")  # in one line, even when room is short
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=whole)
        for row in group:
            shown = readable(row)
            table.add_row(*(shown[name] for name in names))
        console.print(table)
    for line in unfinished_lines(cells, results):
        console.print(f"not finished: {line}", markup=False, highlight=False, soft_wrap=True)
    for line in dropped_lines(cells):
        console.print(f"left out: {line}", markup=False, highlight=False, soft_wrap=True)


def columns(rows: Sequence[Json]) -> list[str]:
    """Names of the columns that say something about these rows."""
    names = ["method", "accuracy", "best", "loss", "worst client", "spread"]
    if rows[0]["target_accuracy"] is not None:
        names.append(_target_column(rows[0]))
    names += ["up", "down"]
    if any(row["bytes_saved_per_round"] is not None for row in rows):
        names.append("saved")
    return [*names, "client FLOPs", "server FLOPs", "spared", "seconds"]


def readable(row: Json) -> dict[str, str]:
    """A row of table.csv as text by column."""
    finished = row["seeds"]
    if not finished:
        shown = dict.fromkeys([*columns([{**row, "bytes_saved_per_round": 0}])], "–")
        return {**shown, "method": row["label"], "accuracy": row["state"]}
    target = {}
    if row["target_accuracy"] is not None:
        some = "" if row["target_reached"] == finished else f" ({row['target_reached']} of {finished} seeds)"
        number = row["rounds_to_target"]
        target = {_target_column(row): "never" if number is None else f"{number:.1f}{some}"}
    lost = f" ({row['unfinished']} {row['state']})" if row["unfinished"] else ""
    return {
        "method": row["label"],
        "accuracy": spread(row["accuracy"], row["accuracy_std"]) + lost,
        "best": number_(row["best_accuracy"]),
        "loss": spread(row["loss"], row["loss_std"]),
        "worst client": number_(row["client_accuracy_min"]),
        "spread": number_(row["client_accuracy_std"]),
        **target,
        "up": size(row["bytes_up_per_round"]),
        "down": size(row["bytes_down_per_round"]),
        "saved": size(row["bytes_saved_per_round"]),
        "client FLOPs": count(row["client_flops_per_round"]),
        "server FLOPs": count(row["server_flops_per_round"]),
        "spared": "–" if row["spared_share"] is None else f"{100 * row['spared_share']:.0f} %",
        "seconds": "–" if row["seconds"] is None else f"{row['seconds']:.1f}",
    }


def markdown_table(names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines of a Markdown table; all columns but the first are aligned to the right."""
    lines = [list(names), ["---", *["---:"] * (len(names) - 1)], *([row[name] for name in names] for row in rows)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def settings_lines(cells: Sequence[Cell]) -> list[str]:
    """A line for each method with what was set for its training, and the optimizers in any case."""
    lines = []
    for cell in {cell.label: cell for cell in cells}.values():
        spec = cell.spec
        said = [f"{spec.run.rounds} rounds", f"batches of {spec.data.batch_size}"]
        for table in (spec.strategy, spec.privacy, spec.wire):
            for name, field in type(table).model_fields.items():
                value = getattr(table, name)
                always = name == "client_optimizer" or (name == "body_optimizer" and spec.strategy.traits.split)
                if always or (value != field.get_default(call_default_factory=True) and name != "name"):
                    said.append(f"{name} {_value(value)}")
        lines.append(f"{cell.label} ({spec.strategy.name}): {', '.join(said)}")
    return lines


def unfinished_lines(cells: Sequence[Cell], results: Mapping[str, Json]) -> list[str]:
    """A line for each cell that did not finish, with the reason."""
    return [
        f"{describe(cell)}: {results[cell.id]['state']}: {results[cell.id]['reason']}"
        for cell in cells
        if results[cell.id]["state"] != FINISHED
    ]


def dropped_lines(cells: Sequence[Cell]) -> list[str]:
    """A line for each method with the settings of the base that it ran without."""
    found = {cell.label: cell.dropped for cell in cells if cell.dropped}
    return [
        f"{label}: {', '.join(dropped)} ({'; '.join(dict.fromkeys(dropped.values()))})"
        for label, dropped in found.items()
    ]


def describe(cell: Cell) -> str:
    """Which cell, in words."""
    return f"{cell.label}, {group_title(*cell.group)}, seed {cell.seed}"


def spread(value: float | None, std: float | None) -> str:
    return number_(value) if std is None else f"{number_(value)} ± {std:.3f}"


def number_(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def size(value: float | None) -> str:
    """Bytes, in powers of 1000."""
    return "–" if value is None else decimal(round(value))


def count(value: float | None) -> str:
    """Operations with a prefix: 1.23 M, 45.6 G."""
    if value is None:
        return "–"
    for factor, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}"


def group_title(partition: str, clients: int, participants: str) -> str:
    """In words, what the data of a group are like."""
    some = "" if participants == "all" else f", {participants} of them a round"
    return f"{partition}, {counted(clients, 'client')}{some}"


def _value(value: Any) -> str:
    if not isinstance(value, BaseModel):
        return str(value)
    options = value.model_dump()
    name = options.pop("name")
    return f"{name}({', '.join(f'{key}={item}' for key, item in options.items())})"


def _target_column(row: Json) -> str:
    return f"rounds to {row['target_accuracy']:g}"


def _grouped(rows: Sequence[Json]) -> list[tuple[str, list[Json]]]:
    def key(row: Json) -> tuple[str, int, str]:
        return row["partition"], row["clients"], row["participants"]

    return [(group_title(*name), list(group)) for name, group in groupby(rows, key)]
