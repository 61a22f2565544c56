"""What a comparison shows on standard error while it runs: a bar on a terminal, else a line for each cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .execute import FINISHED
from .grid import Cell
from .markdown import describe, number_

Json = dict[str, Any]


class Display(Protocol):
    """Told what happens to the cells."""

    def round_over(self, cell: str, rounds: int) -> None: ...

    def cell_over(self, cell: str, result: Json) -> None: ...


@contextmanager
def progress(cells: Sequence[Cell], kept: Mapping[str, Json], *, live: bool) -> Iterator[Display]:
    """A display of `cells`, of which `kept` were finished before. live: whether the terminal may be drawn on."""
    console = Console(stderr=True)
    if not (live and console.is_terminal):
        yield Lines(cells, kept)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rounds"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=console, transient=True) as bars:
        yield Bar(bars, cells, kept)


class Lines:
    """A line for each cell that is over."""

    def __init__(self, cells: Sequence[Cell], kept: Mapping[str, Json]) -> None:
        self._cells = {cell.id: cell for cell in cells}
        self._over = len(kept)
        before = f", {len(kept)} of them finished before" if kept else ""
        click.echo(f"microsfl compare: {len(cells)} cells{before}", err=True)

    def round_over(self, cell: str, rounds: int) -> None:
        """A round is not worth a line."""

    def cell_over(self, cell: str, result: Json) -> None:
        self._over += 1
        click.echo(f"{self._over}/{len(self._cells)}  {outcome(self._cells[cell], result)}", err=True)


class Bar:
    """One bar over the rounds of all cells; what went wrong stands above it."""

    def __init__(self, bars: Progress, cells: Sequence[Cell], kept: Mapping[str, Json]) -> None:
        self._bars = bars
        self._cells = {cell.id: cell for cell in cells}
        self._rounds = {cell.id: cell.spec.run.rounds if cell.id in kept else 0 for cell in cells}
        self._over = len(kept)
        total = sum(cell.spec.run.rounds for cell in cells)
        self._task = bars.add_task(self._title(), total=total, completed=sum(self._rounds.values()))

    def round_over(self, cell: str, rounds: int) -> None:
        self._rounds[cell] = rounds
        self._show()

    def cell_over(self, cell: str, result: Json) -> None:
        self._over += 1
        self._rounds[cell] = self._cells[cell].spec.run.rounds
        if result["state"] != FINISHED:
            self._bars.console.print(outcome(self._cells[cell], result), markup=False, highlight=False)
        self._show()

    def _show(self) -> None:
        self._bars.update(self._task, description=self._title(), completed=sum(self._rounds.values()))

    def _title(self) -> str:
        return f"cell {min(self._over + 1, len(self._cells))} of {len(self._cells)}"


def outcome(cell: Cell, result: Json) -> str:
    """What a cell came to, in a line."""
    if result["state"] != FINISHED:
        return f"{describe(cell)}: {result['state']}: {result['reason']}"
    seconds = sum(row["seconds"] for row in result["rounds"])
    return f"{describe(cell)}: accuracy {number_(result['rounds'][-1]['accuracy'])}, {seconds:.1f} s"
