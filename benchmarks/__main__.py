"""Run the benchmarks and print their figures.

    python -m benchmarks                            # all but those that have to be named, less than 10 minutes
    python -m benchmarks --quick                    # fewer and smaller repetitions, not all, less than 2 minutes
    python -m benchmarks --only metrics dashboard   # these alone
    python -m benchmarks --list

The figures come as a table on standard output and in benchmarks/latest.json. A target that is missed is told and does
not change the exit code; a benchmark that fails does, after the others are done. With --quick, rounds are so short that
what is done once a round weighs several times as much: its throughput says whether something broke, and no more.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from .figures import LATEST, Figure, write_latest
from .throughput import MNIST

# In the order in which they run. Each is a module of this package with `measure(quick: bool) -> Iterator[Figure]`.
REGISTRY = (
    "throughput", "resnet", "scaling", "wire", "recompute", "reduce", "memory", "startup", "polling", "metrics",
    "dashboard", "security", "ray", "plan", "spread",
)  # fmt: skip
# Measured only when they are named: what does not depend on how fast the data plane is, or is measured otherwise too.
NAMED = ("metrics", "dashboard", "ray", "plan", "spread")
LONG = ("security",)  # what --quick leaves out besides
FAILED = 1
UNKNOWN = 2
BUSY = 0.5  # processes of others for each core, above which figures mean little
WIDTH = 120  # of the table in a file or a pipe


@dataclass
class Outcome:
    """What became of one benchmark. error: what it failed with, after the figures that it came to before."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.list:
        print("\n".join(REGISTRY))
        return 0
    unknown = [name for name in given.only or () if name not in REGISTRY]
    if unknown:
        print(f"Unknown: {', '.join(unknown)}. There are {', '.join(REGISTRY)}.", file=sys.stderr)
        return UNKNOWN
    left_out = (*NAMED, *LONG) if given.quick else NAMED
    names = given.only or [name for name in REGISTRY if name not in left_out]
    names = [name for name in REGISTRY if name in names]
    if given.mnist:
        os.environ[MNIST] = given.mnist
    outcomes = run(names, given.quick)
    figures = [figure for outcome in outcomes for figure in outcome.figures]
    write_latest(figures)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table(outcomes))
    console.print(verdict(outcomes), soft_wrap=True)
    return FAILED if any(outcome.error is not None for outcome in outcomes) else 0


def run(names: Sequence[str], quick: bool) -> list[Outcome]:
    """Measure one after the other; a failure ends only its own benchmark."""
    console = Console(stderr=True)
    if hint := busy(os.getloadavg()[0], os.cpu_count() or 1):
        console.print(hint, soft_wrap=True)
    outcomes = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for number, name in enumerate(names, 1):
            task = progress.add_task(f"{number}/{len(names)} {name}", total=None)
            outcome = Outcome(name)
            began_at = time.perf_counter()
            for figure in attempted(outcome, quick):
                progress.console.print(escape(line(figure)), soft_wrap=True)
            outcome.seconds = time.perf_counter() - began_at
            if outcome.error is not None:
                progress.console.print(escape(f"{name} failed: {outcome.error}"), soft_wrap=True)
            progress.console.print(f"{name} took {outcome.seconds:.0f} s")
            progress.remove_task(task)
            outcomes.append(outcome)
    return outcomes


def busy(load: float, cores: int) -> str:
    """What to say about a machine that has other things to do, if it has."""
    if load < BUSY * cores:
        return ""
    return f"This machine is busy: {load:.1f} processes were at work on its {cores} cores. Ratios may be far off."


def attempted(outcome: Outcome, quick: bool) -> Iterator[Figure]:
    """The figures of one benchmark as they come; it may fail in any way."""
    try:
        for figure in import_module(f"{__package__}.{outcome.name}").measure(quick):
            outcome.figures.append(figure)
            yield figure
    except Exception as error:  # noqa: BLE001 - the outermost loop: the others are measured all the same
        traceback.print_exc()
        outcome.error = f"{type(error).__name__}: {error}".splitlines()[0]


def line(figure: Figure) -> str:
    note = f" ({figure.note})" if figure.note else ""
    return f"{figure.name}: {number(figure.median)}, should be {target(figure)}{note}"


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each figure, and one for each benchmark that failed."""
    found = Table(box=box.SIMPLE_HEAD)
    found.add_column("ratio", overflow="fold")
    for name in ("min", "median", "max", "target"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("ok", no_wrap=True)
    for outcome in outcomes:
        for one in outcome.figures:
            mark = "[green]yes[/]" if one.ok else "[red]no[/]"
            values = (number(value) for value in (one.min, one.median, one.max))
            found.add_row(escape(one.name), *values, target(one), mark)
        if outcome.error is not None:
            found.add_row(f"benchmark {outcome.name}", "", "", "", "", "[red]failed[/]")
    return found


def verdict(outcomes: Sequence[Outcome]) -> str:
    """In a line, what was met, missed and failed."""
    figures = [figure for outcome in outcomes for figure in outcome.figures]
    missed = [figure.name for figure in figures if not figure.ok]
    failed = [outcome.name for outcome in outcomes if outcome.error is not None]
    parts = [f"{len(figures) - len(missed)} of {len(figures)} targets are met"]
    parts += [f"missed: {', '.join(missed)}"] if missed else []
    parts += [f"failed: {', '.join(failed)}"] if failed else []
    seconds = sum(outcome.seconds for outcome in outcomes)
    return escape(f"{'; '.join(parts)}. {seconds:.0f} s; figures in {LATEST.relative_to(LATEST.parent.parent)}.")


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def target(figure: Figure) -> str:
    return f"{'≥' if figure.at_least else '≤'} {figure.target:g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure, and print a table of ratios.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"fewer and smaller repetitions, without {', '.join(LONG)}, less than 2 minutes",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these benchmarks alone")
    parser.add_argument("--list", action="store_true", help="print the names of the benchmarks")
    parser.add_argument("--mnist", metavar="PATH", help="folder of MNIST's files; default: made-up data of its shape")
    return parser


if __name__ == "__main__":
    sys.exit(main())
