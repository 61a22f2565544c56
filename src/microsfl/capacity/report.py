"""The tables that `microsfl plan` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..launch.readable import counted
from .plan import Plan
from .quantities import shown_bytes, shown_count, shown_seconds


def tables(plan: Plan, simulated: Mapping[str, float] | None = None) -> Iterator[RenderableType]:
    """What is said of a run, the most asked for first."""
    yield Text(_where(plan))
    yield _time(plan, simulated)
    yield _stations(plan)
    yield _moved(plan)
    yield _servers(plan)
    yield Text(f"The bottleneck is {plan.bottleneck[0]}.\nWhat removes it: {plan.bottleneck[1]}.")
    for note in (*plan.warnings, *plan.calibration.notes):
        yield Text(note)


def _where(plan: Plan) -> str:
    spec, site = plan.workload.spec, plan.site
    clients, replicas = counted(len(plan.workload.train), "client"), counted(site.replicas, "split server")
    where = f"on one machine with {counted(site.cores or 1, 'core')}" if site.shared else "on machines of their own"
    split = f" and {replicas}" if spec.strategy.traits.split else ""
    return (
        f"{spec.run.name}: {spec.model.name}, {spec.strategy.name}, {clients}{split} {where}.\n"
        f"Calibrated by {plan.calibration.source} on {plan.calibration.machine}."
    )


def _time(plan: Plan, simulated: Mapping[str, float] | None) -> Table:
    found = plan.prediction
    table = _table("Time")
    table.add_column("")
    table.add_column("predicted", justify="right")
    if simulated is not None:
        table.add_column("simulated", justify="right")
    rows: list[tuple[str, float, str]] = [
        ("a round", found.round, "round"),
        ("  training, with weights and tasks", found.training + found.exchange, "working"),
        ("    units alone", found.training, ""),
        ("  sync", found.sync, "sync"),
        ("  evaluation", found.evaluation, "evaluation"),
        (counted(plan.rounds, "round"), plan.seconds, ""),
        ("a unit, waiting included", found.unit, "unit"),
        ("a unit with nobody else", found.alone, ""),
    ]
    for name, seconds, key in rows:
        played = [] if simulated is None else [shown_seconds(simulated[key]) if key else ""]
        table.add_row(name, shown_seconds(seconds), *played)
    return table


def _stations(plan: Plan) -> Table:
    table = _table("How busy")
    table.add_column("")
    table.add_column("% of the training", justify="right")
    for name, share in plan.prediction.utilisation.items():
        table.add_row(name, f"{100 * share:.0f}")
    table.add_row("coordinator, requests/s", shown_count(plan.prediction.polls))
    return table


def _moved(plan: Plan) -> Table:
    moved, rounds = plan.volume, plan.rounds
    table = _table("What moves and stays")
    for name in ("", "a round", "the run"):
        table.add_column(name, justify="right" if name else "left")
    for name, value in {
        "up, the largest client": moved.client_up,
        "down, the largest client": moved.client_down,
        "up, all clients": moved.up,
        "down, all clients": moved.down,
        "stored": moved.stored,
    }.items():
        table.add_row(name, shown_bytes(value), shown_bytes(value * rounds))
    for name, count in {
        "requests of the clients": moved.requests,
        "files": moved.files,
        "requests to the store that write or list": moved.puts,
        "requests to the store that read": moved.gets,
    }.items():
        table.add_row(name, shown_count(count), shown_count(count * rounds))
    table.add_row("the store costs", "", f"${plan.dollars:,.2f}")
    return table


def _servers(plan: Plan) -> Table:
    table = _table("A split server's memory")
    table.add_column("")
    table.add_column("", justify="right")
    memory = plan.memory
    if plan.calibration.resident:
        table.add_row("process", shown_bytes(memory.process))
    table.add_row("versions of the body", shown_bytes(memory.weights))
    table.add_row("graphs of all units under way", shown_bytes(memory.graphs))
    if memory.graphs > memory.bound:
        table.add_row(f"  of them kept (servers.graph_cache_mb = {memory.bound / 1e6:g})", shown_bytes(memory.bound))
    table.add_row("together", shown_bytes(memory.total))
    return table


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False,
        collapse_padding=True, show_header=title != "A split server's memory",
    )  # fmt: skip
