"""`microsfl compare`: from a configuration file to a folder with tables and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from ..launch.preflight import check_matplotlib, resolve
from ..launch.run_folder import default_path
from ..launch.training import signals_unwind
from ..spec import RunSpec
from .config import Comparison
from .folder import CompareFolder
from .grid import Cell, cells
from .progress import Display, progress

# A result that is kept when a comparison goes on; whatever else went wrong may go right the next time.
SETTLED = ("finished", "diverged")

Json = dict[str, Any]


def compare(
    comparison: Comparison, output: Path | None, *, jobs: int | None, services: bool, as_json: bool = False
) -> int:
    """Run every cell that is not finished, and write tables and plots; the exit code.

    Args:
        output: a new or empty folder, or that of the same comparison, to go on with it; default:
            runs/compare-<date>-<time>.
        jobs: simulations at a time; None: as many as cores. services: real services instead, a cell at a time.

    Returns:
        0, or 1 when not a single cell finished.

    Raises:
        InputError: when something is wrong with any cell or the folder; nothing has run then.
    """
    check_matplotlib("`microsfl compare` draws its plots")
    grid = cells(comparison)
    resolved = _resolved(grid)
    how = "services" if services else "simulated"
    folder = CompareFolder(output or default_path("compare"), {"how": how, **comparison.values})
    found = {cell.id: folder.result(cell.id) for cell in grid}
    results = {name: one for name, one in found.items() if one is not None and one["state"] in SETTLED}
    with signals_unwind(), progress(grid, results, live=not services) as display:
        run = _Run(folder, grid, results, display)
        tasks = [(cell, resolved[cell]) for cell in run.tasks()]
        if services:
            _with_services(tasks, folder, run)
        else:
            from ..launch.federation import cores
            from .workers import simulate_all

            simulate_all(tasks, jobs or cores(), display.round_over, run.over)
    _write(folder, grid, results, comparison.compare.target_accuracy, how, as_json=as_json)
    if not as_json:
        click.echo(f"  results in {folder.path}")
    return 0 if any(one["state"] == "finished" for one in results.values()) else 1


class _Run:
    """Takes the cells' results as they come. One that was run counts for every cell that is the same work."""

    def __init__(self, folder: CompareFolder, grid: Sequence[Cell], results: dict[str, Json], display: Display) -> None:
        self.folder, self.results, self.display = folder, results, display
        self.same: dict[RunSpec, list[Cell]] = {}
        for cell in grid:
            if cell.id not in results:
                self.same.setdefault(cell.work, []).append(cell)

    def tasks(self) -> list[str]:
        """The cells to run: one of each that are the same work."""
        return [cells_[0].id for cells_ in self.same.values()]

    def over(self, cell: str, result: Json, metrics: Sequence[Json]) -> None:
        (group,) = (cells_ for cells_ in self.same.values() if cells_[0].id == cell)
        for one in group:
            of_one = {**result, "id": one.id}
            self.folder.write_result(one.id, of_one, metrics)
            self.results[one.id] = of_one
            self.display.cell_over(one.id, of_one)


def _with_services(tasks: Sequence[tuple[str, RunSpec]], folder: CompareFolder, run: _Run) -> None:
    from .execute import result_of, with_services

    for cell, spec in tasks:
        run.over(cell, *result_of(cell, spec, with_services(folder.fresh_run(cell))))


def _resolved(grid: Sequence[Cell]) -> dict[str, RunSpec]:
    """The resolved specification of each cell, which is rehearsed.

    Raises:
        InputError: naming the first with which something is wrong.
    """
    from ..launch.rehearsal import rehearse
    from ..zoo.datasets import Data, load_data
    from .markdown import describe

    loaded: dict[tuple[str, str | None], Data] = {}
    found = {}
    for cell in grid:
        source = (cell.spec.data.dataset, cell.spec.data.path)
        try:
            found[cell.id] = spec = resolve(cell.spec, loaded.get(source))
            if source not in loaded and spec.data.partition != "own":
                loaded[source] = load_data(*source)
            rehearse(spec, loaded.get(source))
        except InputError as error:
            raise type(error)(f"{describe(cell)}: {error}") from None
    return found


def _write(
    folder: CompareFolder,
    grid: Sequence[Cell],
    results: dict[str, Json],
    target: float | None,
    how: str,
    *,
    as_json: bool,
) -> None:
    """The tables, on standard output too, and the plots."""
    from .markdown import print_comparison, to_markdown
    from .plots import write_plots
    from .report import CELL_COLUMNS, LONG_COLUMNS, TABLE_COLUMNS, cell_rows, long_rows, table_rows

    rows = table_rows(grid, results, target)
    folder.write_rows("table.csv", TABLE_COLUMNS, rows)
    of_cells = cell_rows(grid, results, target)
    folder.write_rows("cells.csv", CELL_COLUMNS, of_cells)
    folder.write_rows("rounds.csv", LONG_COLUMNS, long_rows(grid, results))
    folder.write_text("table.md", to_markdown(grid, rows, results, how))
    write_plots(folder.path / "plots", grid, results)
    if as_json:
        tables = {
            "table": [{name: _number(row[name]) for name in TABLE_COLUMNS} for row in rows],
            "cells": [{name: _number(row[name]) for name in CELL_COLUMNS} for row in of_cells],
        }
        click.echo(json.dumps({"folder": str(folder.path), **tables}, indent=2, allow_nan=False))
    else:
        print_comparison(grid, rows, results)


def _number(value: Any) -> Any:
    """JSON has no word for what a run that diverged may come to."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
