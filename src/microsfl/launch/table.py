"""What a finished run prints on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from .readable import rounded

ROWS = 30

Json = dict[str, Any]


def print_results(summary: Json, metrics: Sequence[Json], folder: Path) -> None:
    """A row for each client in the last round, then the run's figures."""
    last = [row for row in metrics if row["round"] == summary["rounds"] - 1]
    Console().print(clients_table(last, summary))
    for name, value in figures(summary):
        click.echo(f"  {name:<12} {value}")
    click.echo(f"  {'run folder':<12} {folder}")


def clients_table(rows: Sequence[Json], summary: Json) -> Table:
    """Per client: samples, accuracy, loss; the total weighs by test samples."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    train, test = (sum(row[name] or 0 for row in rows) for name in ("samples", "test_samples"))
    table.add_column("client", footer="all")
    for name, total in (
        ("train samples", f"{train // summary['spec']['strategy']['local_epochs']:,}"),
        ("test samples", f"{test:,}"),
        ("accuracy", rounded(summary["accuracy"])),
        ("loss", rounded(summary["loss"])),
    ):
        table.add_column(name, footer=total, justify="right")
    for row in rows[:ROWS]:
        table.add_row(
            row["client"],
            _count(row["samples"], summary["spec"]["strategy"]["local_epochs"]),
            _count(row["test_samples"]),
            rounded(row["test_accuracy"]),
            rounded(row["test_loss"]),
        )
    if len(rows) > ROWS:
        table.add_row(f"… {len(rows) - ROWS} more in metrics.csv")
    return table


def figures(summary: Json) -> list[tuple[str, str]]:
    """(name, value) of what a run came to, without what its strategy does not have."""
    speed, saved = summary["samples_per_s"], summary["bytes_saved"]
    hashes = "  ".join(f"{part} {digest[:12]}" for part, digest in summary["weights_sha256"].items())
    left_out = f", {summary['left_out']:,} left out" if summary["left_out"] else ""
    taken = f" of {summary['contributions']:,} contributions" if summary["contributions"] is not None else ""
    commits = f"{summary['commits']:,}{taken}{left_out}"
    found = [
        ("accuracy", f"{rounded(summary['accuracy'])} (mean over clients {rounded(summary['accuracy_mean'])})"),
        ("loss", rounded(summary["loss"])),
        ("speed", f"{speed:,.0f} samples/s" if speed is not None else "–"),
        ("time", f"{summary['seconds']:.1f} s for {summary['rounds']} rounds"),
        ("traffic", f"{decimal(summary['bytes_up'])} up, {decimal(summary['bytes_down'])} down"),
        ("saved", f"{decimal(saved)} that were not sent" if saved is not None else ""),
        ("commits", commits if summary["split_servers"] else ""),
        ("weights", f"sha256 {hashes}" if hashes else ""),
    ]
    return [(name, value) for name, value in found if value]


def _count(value: int | None, parts: int = 1) -> str:
    return "–" if value is None else f"{value // parts:,}"
