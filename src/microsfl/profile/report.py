"""The tables that `microsfl profile` prints."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.bar import Bar
from rich.table import Table

from ..launch.readable import counted
from .summary import CLIENT_PHASES, ROUND_PHASES, SERVER_PHASES, Profile

ROWS = 30
BAR_WIDTH = 24


def tables(profile: Profile) -> Iterator[Table]:
    """One about each kind of participant that the profile knows anything of."""
    if profile.rounds:
        yield of_rounds(profile)
    if profile.clients:
        yield of_training(profile)
        yield of_clients(profile)
    if profile.servers:
        yield of_servers(profile)


def of_rounds(profile: Profile) -> Table:
    """Seconds of each part of each round."""
    table = _table("The rounds, in seconds", show_footer=True)
    table.add_column("round", footer="all")
    for part in ROUND_PHASES:
        total = sum(parts.get(part, 0.0) for parts in profile.rounds.values())
        table.add_column(part, footer=f"{_seconds(total)} ({_percent(total, profile.seconds)} %)", justify="right")
    for number, parts in list(profile.rounds.items())[:ROWS]:
        table.add_row(str(number + 1), *(_seconds(parts[part]) if part in parts else "–" for part in ROUND_PHASES))
    _add_rest(table, len(profile.rounds))
    return table


def of_training(profile: Profile) -> Table:
    """All clients together while they train, and of their waiting what the requests are at."""
    seconds = {phase: sum(one.training[phase] for one in profile.clients.values()) for phase in phases(profile)}
    total = sum(seconds.values())
    table = _table(f"{counted(len(profile.clients), 'client')} while training")
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("%", justify="right")
    table.add_column("", width=BAR_WIDTH)
    for phase, spent in seconds.items():
        table.add_row(phase, _seconds(spent), _percent(spent, total), _bar(spent, total))
        for part, share in profile.waits().items() if phase == "waiting" else ():
            inner = share * spent
            table.add_row(f"  {part}", _seconds(inner), _percent(inner, total), _bar(inner, total), style="dim")
    return table


def of_clients(profile: Profile) -> Table:
    """Each client's seconds of training, and how they are divided."""
    table = _table("Each client while training, in percent")
    table.add_column("client", no_wrap=True)
    table.add_column("seconds", justify="right")
    for phase in phases(profile):
        table.add_column(phase, justify="right")
    for name, one in list(profile.clients.items())[:ROWS]:
        shares = (_percent(one.training[phase], one.seconds) for phase in phases(profile))
        table.add_row(name, _seconds(one.seconds), *shares)
    _add_rest(table, len(profile.clients))
    return table


def of_servers(profile: Profile) -> Table:
    """Each server's seconds. busy: share of the rounds' time in which its compute thread was at work. hits: share of
    the backwards that found the graph of their forward."""
    table = _table("The servers, in seconds")
    table.add_column("server", no_wrap=True)
    for name in ("requests", *SERVER_PHASES, "busy %", "hits %"):
        table.add_column(name, justify="right")
    for name, one in list(profile.servers.items())[:ROWS]:
        table.add_row(
            name,
            f"{one.requests:,}",
            *(_seconds(one.phases[phase]) for phase in SERVER_PHASES),
            _percent(one.busy_s, profile.seconds),
            _percent(one.hits, one.hits + one.misses),
        )
    _add_rest(table, len(profile.servers))
    return table


def phases(profile: Profile) -> list[str]:
    """The phases of training that occur, those that are not known last."""
    found = {phase for one in profile.clients.values() for phase in one.training}
    return [*(phase for phase in CLIENT_PHASES if phase in found), *sorted(found - set(CLIENT_PHASES))]


def _table(title: str, *, show_footer: bool = False) -> Table:
    """Narrow enough for 80 columns."""
    return Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="bold",
        show_footer=show_footer,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )


def _add_rest(table: Table, count: int) -> None:
    if count > ROWS:
        table.add_row(f"… {count - ROWS} more in profile.csv")


def _bar(part: float, whole: float) -> Bar:
    return Bar(whole or 1.0, 0.0, part, width=BAR_WIDTH)


def _seconds(value: float) -> str:
    return f"{value:,.3f}" if value < 100 else f"{value:,.0f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole > 0 else "–"
