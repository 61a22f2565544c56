"""A run as the coordinator holds it, and what one step of it changes: state, round bookkeeping, metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ..core.run_state import Phase, RunState, Status, from_json, to_json
from ..core.summary import summarize
from ..errors import MicrosflError, StoreCorrupt
from ..records import Records, Row, RunRecord
from ..spec import RunSpec


@dataclass
class Run:
    """`rounds`, and `reports` of the current round by client, mirror what the records hold.

    `revision` grows by one with each step; `progress_at` is when one last brought the run on, or when this process took
    it up.
    """

    spec: RunSpec
    created_at: float
    state: RunState
    progress_at: float
    revision: int = 1
    rounds: dict[int, Row] = field(default_factory=dict)
    reports: dict[str, Row] = field(default_factory=dict)
    ended_at: float | None = None
    class_counts: list[list[int]] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.spec.run.name

    @cached_property
    def spec_json(self) -> dict[str, Any]:
        """The specification as it is answered; nobody changes it."""
        return self.spec.model_dump(mode="json")

    def draft(self) -> Run:
        """The run as it is, to take steps that are not recorded yet."""
        return replace(self, rounds=dict(self.rounds), reports=dict(self.reports))

    def record(self) -> RunRecord:
        return RunRecord(
            self.name, self.spec.to_json(), to_json(self.state), self.revision, self.created_at, self.ended_at
        )


@dataclass(frozen=True)
class Step:
    """From the state that a run has to `state`; the rows hold the columns that are new, by round (and client)."""

    at: float
    state: RunState
    rounds: dict[int, Row]
    metrics: dict[tuple[int, str], Row]


def load(records: Records, record: RunRecord, now: float) -> Run:
    """The run as it was left, taken up `now`.

    Raises:
        StoreCorrupt: when its specification or state cannot be read.
    """
    try:
        spec, state = RunSpec.parse(json.loads(record.spec)), from_json(record.state)
        counts = json.loads(record.class_counts or "null")
    except (MicrosflError, ValueError, TypeError) as error:
        raise StoreCorrupt(f"Run '{record.name}' in the database {records.url} cannot be read: {error}") from None
    rows = {row["round"]: row for row in records.rounds(record.name)}
    reports = {row["client"]: row for row in records.metrics(record.name, state.round)}
    return Run(spec, record.created_at, state, now, record.revision, rows, reports, record.ended_at, counts)


def plan(
    run: Run, state: RunState, now: float, brought: Row, client: str | None, without: Sequence[tuple[str, str]]
) -> Step:
    """The step to `state`; `brought` are metrics that `client` reported or, without one, columns of the round.

    `without` are the clients that the round goes on without from now on, with the reasons.
    """
    rounds: dict[int, Row] = {}
    metrics: dict[tuple[int, str], Row] = {}
    before, this = run.state, run.state.round
    if client is None:
        rounds[this] = dict(brought)
    elif brought:
        metrics[this, client] = brought
    if before.phase is Phase.TRAINING and state.phase in (Phase.SYNCING, Phase.EVALUATING):
        rounds[this] = {**rounds.get(this, {}), "trained_at": now}
    if before.phase in (Phase.TRAINING, Phase.SYNCING) and state.phase is Phase.EVALUATING:
        versions = {"body_version": state.body_version, "client_version": state.client_version}
        rounds[this] = {**rounds.get(this, {}), "synced_at": now, **versions}
    if before.phase is Phase.EVALUATING is not state.phase and state.status in (Status.RUNNING, Status.FINISHED):
        reports = {**run.reports, **{one: {**run.reports.get(one, {}), **row} for (_, one), row in metrics.items()}}
        rounds[this] = {"ended_at": now, **asdict(summarize(reports.values(), _seconds(run.rounds[this])))}
    if without:
        entries = [{"client": one, "phase": before.phase, "reason": reason} for one, reason in without]
        rounds[this] = {**rounds.get(this, {}), "absent": json.dumps([*absent(run.rounds[this]), *entries])}
    if before.status is Status.WAITING and state.phase is not None:
        rounds[state.round] = _begun(state, now, run.rounds.get(state.round, {}))
    elif state.phase is Phase.TRAINING and before.phase is not Phase.TRAINING:
        rounds[state.round] = {"started_at": now}
    return Step(now, state, {round_: row for round_, row in rounds.items() if row}, metrics)


def absent(row: Row) -> list[Row]:
    """Whom a round went on without: client, phase and reason."""
    entries: list[Row] = json.loads(row.get("absent") or "[]")
    return entries


def _begun(state: RunState, now: float, known: Row) -> Row:
    """Times of the first round that a run begins with, or goes on with: one that is adopted may be synced already."""
    if state.phase is Phase.TRAINING:
        return {"started_at": now, "absent": None}  # who failed in it before the run was resumed is in it again
    row: Row = {"started_at": now}
    if state.phase is Phase.EVALUATING:
        row |= {"synced_at": now, "body_version": state.body_version, "client_version": state.client_version}
    return {name: value for name, value in row.items() if known.get(name) is None}


def take(run: Run, step: Step) -> None:
    """Make the step, once it is recorded."""
    if step.state.round != run.state.round:
        run.reports = {}
    else:
        for (_, client), row in step.metrics.items():
            run.reports[client] = {**run.reports.get(client, {}), **row}
    for round_, row in step.rounds.items():
        run.rounds[round_] = {"round": round_, **run.rounds.get(round_, {}), **row}
    if replace(step.state, away=run.state.away) != run.state:  # who comes and goes is no progress by itself
        run.progress_at = step.at
    if step.state.ended is not run.state.ended:
        run.ended_at = step.at if step.state.ended else None
    run.state = step.state
    run.revision += 1


def _seconds(row: Row) -> float:
    # The clock of the wall may be set back in the meantime.
    return max(0.0, float(row["synced_at"]) - float(row["started_at"]))
