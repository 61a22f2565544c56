"""The coordinator's metrics, from what it keeps anyhow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..core.run_state import Status
from ..records import Records
from ..telemetry.exposition import Point, build_point
from .data_plane import DataPlane
from .director import Director
from .roster import CLIENT, FED_SERVER, SPLIT_SERVER, Roster
from .run import Run
from .scale import MOST_REPLICAS, Scale

# A database keeps runs for ever, and a label should have few values: of the ended ones only the newest are shown.
ENDED_RUNS = 20


def points(director: Director, records: Records, data_plane: DataPlane, scale: Scale) -> Iterator[Point]:
    yield build_point("coordinator")
    yield "microsfl_replicas_wanted", {}, scale.replicas(0, MOST_REPLICAS)
    yield "microsfl_replicas_load", {}, scale.load
    yield from _participants(director.roster)
    runs = director.runs()
    states = Counter(run.state.status for run in runs)
    yield from (("microsfl_runs", {"state": state.value}, states[state]) for state in Status)
    for run in shown(runs):
        yield from _run(run)
    for call, seconds in data_plane.seconds.items():
        yield "microsfl_data_plane_seconds", {"call": call}, seconds
    for call in data_plane.seconds.keys() | data_plane.retries.keys():
        yield "microsfl_data_plane_retries_total", {"call": call}, data_plane.retries[call]
    yield "microsfl_database_transactions_total", {}, records.figures.transactions
    yield "microsfl_database_errors_total", {}, records.figures.errors
    yield "microsfl_database_retries_total", {}, records.figures.retries


def shown(runs: Iterable[Run]) -> list[Run]:
    """Runs with metrics of their own: all that go on, and those that were created last of the others."""
    runs = list(runs)
    ended = [run.name for run in runs if run.state.ended][-ENDED_RUNS:]
    return [run for run in runs if not run.state.ended or run.name in ended]


def _participants(roster: Roster) -> Iterator[Point]:
    found = Counter((one.role, roster.alive(one.id)) for one in roster.all())
    for role in (CLIENT, SPLIT_SERVER, FED_SERVER):
        for alive in (True, False):
            yield "microsfl_participants", {"role": role, "alive": str(alive).lower()}, found[role, alive]


def _run(run: Run) -> Iterator[Point]:
    labels, state = {"run": run.name}, run.state
    yield "microsfl_run_running", labels, float(state.status is Status.RUNNING)
    if state.managed:  # of any other the coordinator does not know the round
        yield "microsfl_run_round", labels, state.round
        yield "microsfl_run_rounds", labels, state.rounds
    yield "microsfl_run_away_clients", labels, len(state.away)
    yield "microsfl_run_overdue", labels, float(state.overdue)
    last = next((row for row in reversed(run.rounds.values()) if row.get("ended_at") is not None), {})
    for name, column in (("microsfl_run_accuracy_ratio", "accuracy"), ("microsfl_run_loss", "loss")):
        if last.get(column) is not None:
            yield name, labels, last[column]
