"""What an audit shows on standard error while it goes on: a bar a stage on a terminal, else a line a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# Takes a stage's name and how many steps it has; the function that it returns is called after each step.
Stages = Callable[[str, int], Callable[[], None]]


@contextmanager
def stages() -> Iterator[Stages]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if not console.is_terminal:
        yield _line
        return
    with Progress(*columns, console=console, transient=True) as bars:

        def stage(name: str, steps: int) -> Callable[[], None]:
            task = bars.add_task(name, total=steps)
            return lambda: bars.advance(task)

        yield stage


def _line(name: str, _: int) -> Callable[[], None]:
    click.echo(f"{name} …", err=True)
    return lambda: None
