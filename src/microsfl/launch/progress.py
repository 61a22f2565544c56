"""What a run shows on standard error while it lives: a live display on a terminal, else a line a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..spec import RunSpec
from .control import Control
from .kept import Kept
from .login_link import LoginLink
from .readable import counted, duration, rounded
from .supervisor import Supervisor

REFRESH_PER_S = 8
OUTLIERS_NAMED = 3
MARKS = {"up": ("●", "green"), "starting": ("○", "yellow"), "ended": ("✕", "red")}

Json = dict[str, Any]


class Shown(Protocol):
    """A run, and the processes of it that are on this machine."""

    @property
    def spec(self) -> RunSpec: ...

    @property
    def control(self) -> Control: ...

    @property
    def children(self) -> Sequence[Kept]: ...

    @property
    def supervisor(self) -> Supervisor: ...


@contextmanager
def progress(federation: Shown) -> Iterator[Callable[[Json], None]]:
    """A function that takes the run at each change; what it shows appears when the block is entered."""
    console = Console(stderr=True)
    if console.is_terminal:
        screen = Screen(federation)
        with Live(get_renderable=screen.render, console=console, refresh_per_second=REFRESH_PER_S, transient=True):
            yield screen.show
    else:
        yield Lines(federation).show


class Lines:
    """A line when the run begins, with the dashboard's address, for each round, and for each restart of a process."""

    def __init__(self, federation: Shown) -> None:
        self.federation = federation
        self.rounds = -1
        self.reported = 0
        self.waiting = ""

    def show(self, run: Json) -> None:
        if self.rounds < 0:
            self.rounds = 0
            click.echo(f"{title(self.federation.spec)}; {dashboard(self.federation)}", err=True)
        reports = self.federation.supervisor.reports
        for report in reports[self.reported :]:
            click.echo(report, err=True)
        self.reported = len(reports)
        waiting = run.get("waiting", "")
        if waiting and waiting != self.waiting:
            click.echo(waiting, err=True)
        self.waiting = waiting
        for result in run["history"][self.rounds :]:
            click.echo(line(result, run["rounds"]), err=True)
        self.rounds = len(run["history"])


class Screen:
    """A few lines that are drawn again and again: the round, its figures, and which processes are up."""

    def __init__(self, federation: Shown) -> None:
        self.federation = federation
        self.began_at = time.monotonic()
        self.run: Json | None = None
        self.link, self.address = LoginLink(), ""
        self.first: tuple[float, int] | None = None  # when rounds were first seen to be over, and how many

    def show(self, run: Json) -> None:
        self.address = self.link.of(self.federation.control)
        self.run = run
        if self.first is None and run["history"]:
            self.first = time.monotonic(), len(run["history"])

    def render(self) -> Group:
        elapsed = duration(time.monotonic() - self.began_at)
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        head.add_row(Text(title(self.federation.spec), style="bold"), elapsed)
        if self.run is not None and self.run["state"] == "finished":
            return Group(head, *self._rounds(), Text("ending the processes, writing the results …", style="dim"))
        restarts = [Text(report, style="yellow") for report in self.federation.supervisor.reports[-3:]]
        where = [] if self.run is None else [Text(f"dashboard at {self.address}", style="dim")]
        return Group(head, *self._rounds(), processes(self.federation.children), *restarts, *where)

    def _rounds(self) -> list[Table | Text]:
        if self.run is None:
            return [Text("starting the processes …", style="dim")]
        bar = Table.grid(padding=(0, 2))
        done = len(self.run["history"])
        doing = list(self.run["progress"].values())
        waiting = f"{doing.count('done')}/{len(doing)} clients" if doing else ""
        bar.add_row(
            f"round {min(self.run['round'] + 1, self.run['rounds'])}/{self.run['rounds']}",
            ProgressBar(total=self.run["rounds"], completed=done, width=30),
            f"{self.run['phase'] or self.run['state']} {waiting}",
            Text(remaining(self.first, time.monotonic(), done, self.run["rounds"]), style="dim"),
        )
        nothing = self.run.get("waiting") or "no round is over yet"
        return [bar, Text(figures(self.run["history"][-1]) if done else nothing)]


def remaining(first: tuple[float, int] | None, now: float, done: int, rounds: int) -> str:
    """How long the rest will take, at the pace since `first` was noted: a time, and the rounds over by then."""
    if first is None or done <= first[1] or done >= rounds:
        return ""
    pace_s = (now - first[0]) / (done - first[1])
    return f"about {duration(pace_s * (rounds - done))} left"


def title(spec: RunSpec) -> str:
    """What runs, in a line."""
    split = f", {counted(spec.servers.split, 'split server')}" if spec.strategy.traits.split else ""
    clients = counted(spec.run_clients, "client")
    data = "the clients' own data" if spec.data.partition == "own" else spec.data.dataset
    return f"microsfl run '{spec.run.name}': {spec.strategy.name} on {data}, {clients}{split}"


def dashboard(federation: Shown) -> str:
    """Where the run can be watched, once its coordinator is there."""
    return f"dashboard at {federation.control.url}"


def line(result: Json, rounds: int) -> str:
    """A round that is over, in a line."""
    named = outliers(result)
    return f"round {result['round'] + 1}/{rounds}  {figures(result)}" + (f"  outliers: {named}" if named else "")


def outliers(result: Json) -> str:
    """The clients that sent what is unlike what the others did; the first of them, where there are many."""
    found = result.get("outliers", [])
    more = f" and {len(found) - OUTLIERS_NAMED} more" if len(found) > OUTLIERS_NAMED else ""
    return ", ".join(found[:OUTLIERS_NAMED]) + more


def figures(result: Json) -> str:
    """The figures of a round that is over."""
    speed = result["samples_per_s"]
    return f"accuracy {rounded(result['accuracy'])}  loss {rounded(result['loss'])}  " + (
        f"{speed:,.0f} samples/s" if speed is not None else ""
    )


def processes(children: Sequence[Kept]) -> Text:
    """Each process with a mark that says whether it is up."""
    line = Text()
    for child in list(children):
        mark, colour = MARKS[child.state]
        line.append(f"{mark}\N{NO-BREAK SPACE}", colour).append(f"{child.name}  ")
    return line
