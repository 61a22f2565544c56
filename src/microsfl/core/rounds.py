"""The rounds of a run as a pure transition: `(state, event) -> (state, commands)`.

Nothing here knows a clock, a socket or a database. What is to be done follows from the state alone (`pending`), so a
process that restarts asks the state that it saved; and an event that does not fit the state (a duplicate, a late or a
replayed one, one that came before its time) changes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar


class Status(StrEnum):
    CREATED = "created"  #   Started → waiting, or running when the run is not managed
    WAITING = "waiting"  #   ClientsAvailable, enough of them → running, in round 0
    RUNNING = "running"  #   the last evaluation of the last round → finished
    FINISHED = "finished"  # an end: nothing leaves it
    FAILED = "failed"  #     an end; Failed leads here from created, waiting and running
    STOPPED = "stopped"  #   an end; StopRequested leads here from created, waiting and running


class Phase(StrEnum):
    """Where the round of a managed, running run is; any other run has no phase."""

    TRAINING = "training"  #     every client has Trained → syncing
    SYNCING = "syncing"  #       Reduced and Aggregated, in any order → evaluating
    EVALUATING = "evaluating"  # every client has Evaluated → training of the next round, or the run is finished


ENDED = frozenset({Status.FINISHED, Status.FAILED, Status.STOPPED})


@dataclass(frozen=True)
class RunState:
    """All that decides what happens next. `rounds` and `needed` (clients) come from the specification."""

    rounds: int
    needed: int
    managed: bool = True
    status: Status = Status.CREATED
    phase: Phase | None = None
    round: int = 0
    clients: tuple[str, ...] = ()  # sorted; fixed when the run begins; a client's position is its index
    trained: frozenset[str] = frozenset()
    reduced: bool = False
    aggregated: bool = False
    evaluated: frozenset[str] = frozenset()
    body_version: int = 0
    client_version: int = 0
    reason: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True)
class Train:
    kind: ClassVar[str] = "train"
    client: str
    round: int


@dataclass(frozen=True)
class Evaluate:
    kind: ClassVar[str] = "evaluate"
    client: str
    round: int


@dataclass(frozen=True)
class Reduce:
    round: int


@dataclass(frozen=True)
class Aggregate:
    round: int
    clients: tuple[str, ...]  # those whose training counts in this round, sorted


Task = Train | Evaluate
Command = Task | Reduce | Aggregate


@dataclass(frozen=True)
class Started:
    pass


@dataclass(frozen=True)
class ClientsAvailable:
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    client: str
    round: int


@dataclass(frozen=True)
class Reduced:
    round: int
    version: int


@dataclass(frozen=True)
class Aggregated:
    round: int
    version: int


@dataclass(frozen=True)
class Evaluated:
    client: str
    round: int


@dataclass(frozen=True)
class TaskFailed:
    """A client gave a task up; of no account unless that task is open."""

    task: Task
    reason: str


@dataclass(frozen=True)
class Failed:
    reason: str


@dataclass(frozen=True)
class StopRequested:
    pass


Event = (
    Started | ClientsAvailable | Trained | Reduced | Aggregated | Evaluated | TaskFailed | Failed | StopRequested
)  # fmt: skip


def step(state: RunState, event: Event) -> tuple[RunState, tuple[Command, ...]]:
    """The state after `event`, and the commands that are pending now and were not before.

    An event that does not fit returns the same state and no command.
    """
    after = _after(state, event)
    if (after.round, after.phase) == (state.round, state.phase):
        return after, ()  # within a phase commands are only done, never added
    before = set(pending(state))
    return after, tuple(command for command in pending(after) if command not in before)


def pending(state: RunState) -> tuple[Command, ...]:
    """Every command that is open in `state`, in client order; none before the run begins or after it ended."""
    if state.phase is Phase.SYNCING:
        reduce = () if state.reduced else (Reduce(state.round),)
        aggregate = () if state.aggregated else (Aggregate(state.round, tuple(sorted(state.trained))),)
        return reduce + aggregate
    return tuple(task for client in state.clients if (task := task_of(state, client)) is not None)


def task_of(state: RunState, client: str) -> Task | None:
    """What `client` has to do now, if anything."""
    if client not in state.clients:
        return None
    if state.phase is Phase.TRAINING and client not in state.trained:
        return Train(client, state.round)
    if state.phase is Phase.EVALUATING and client not in state.evaluated:
        return Evaluate(client, state.round)
    return None


def _after(state: RunState, event: Event) -> RunState:
    match event:
        case Failed(reason) if not state.ended:
            return _end(state, Status.FAILED, reason)
        case StopRequested() if not state.ended:
            return _end(state, Status.STOPPED)
        case Started() if state.status is Status.CREATED:
            return replace(state, status=Status.WAITING if state.managed else Status.RUNNING)
        case ClientsAvailable(ids) if state.status is Status.WAITING and len(set(ids)) >= state.needed:
            clients = tuple(sorted(set(ids))[: state.needed])
            return _begin_round(replace(state, status=Status.RUNNING, clients=clients), 0)
        case _ if state.phase is not None:
            return _within_round(state, event)
    return state


def _within_round(state: RunState, event: Event) -> RunState:
    match event:
        case Trained(client, round_) if task_of(state, client) == Train(client, round_):
            return _when_trained(replace(state, trained=state.trained | {client}))
        case Reduced(round_, version) if _syncs(state, round_) and not state.reduced:
            return _when_synced(replace(state, reduced=True, body_version=version))
        case Aggregated(round_, version) if _syncs(state, round_) and not state.aggregated:
            return _when_synced(replace(state, aggregated=True, client_version=version))
        case Evaluated(client, round_) if task_of(state, client) == Evaluate(client, round_):
            return _when_evaluated(replace(state, evaluated=state.evaluated | {client}))
        case TaskFailed(task, reason) if task_of(state, task.client) == task:
            return _end(state, Status.FAILED, reason)
    return state


def _syncs(state: RunState, round_: int) -> bool:
    return state.phase is Phase.SYNCING and state.round == round_


def _begin_round(state: RunState, round_: int) -> RunState:
    return replace(
        state,
        phase=Phase.TRAINING,
        round=round_,
        trained=frozenset(),
        reduced=False,
        aggregated=False,
        evaluated=frozenset(),
    )


def _when_trained(state: RunState) -> RunState:
    return replace(state, phase=Phase.SYNCING) if state.trained.issuperset(state.clients) else state


def _when_synced(state: RunState) -> RunState:
    return replace(state, phase=Phase.EVALUATING) if state.reduced and state.aggregated else state


def _when_evaluated(state: RunState) -> RunState:
    if not state.evaluated.issuperset(state.clients):
        return state
    if state.round + 1 < state.rounds:
        return _begin_round(state, state.round + 1)
    return _end(state, Status.FINISHED)


def _end(state: RunState, status: Status, reason: str | None = None) -> RunState:
    return replace(state, status=status, phase=None, reason=reason)


def to_json(state: RunState) -> str:
    """The state as JSON; equal states give equal text."""
    values = dict(vars(state))
    for name in ("trained", "evaluated"):
        values[name] = sorted(values[name])
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> RunState:
    """The state that `to_json` wrote; a field that is not in the text has its default.

    Raises:
        ValueError, TypeError: when the text is not such a state.
    """
    values = dict(json.loads(text))
    for name, kind in (("clients", tuple), ("trained", frozenset), ("evaluated", frozenset), ("status", Status)):
        if name in values:
            values[name] = kind(values[name])
    if values.get("phase") is not None:
        values["phase"] = Phase(values["phase"])
    return RunState(**values)


@dataclass(frozen=True)
class RoundSummary:
    """What a round came to. A mean over nothing is None, and so is a rate over no time."""

    accuracy: float | None  #      mean of the clients' test accuracies, weighted by their test samples; 0 to 1
    accuracy_mean: float | None  # their plain mean
    loss: float | None  #          mean of the clients' test losses, weighted by their test samples
    train_loss: float | None  #    mean of the clients' training losses, weighted by their training samples
    samples: int  #                training samples of all clients
    seconds: float  #              wall time of training and sync
    samples_per_s: float | None


def summarize(reports: Iterable[Mapping[str, Any]], seconds: float) -> RoundSummary:
    """The summary of one round from its clients' reports (keys as in the metrics table; absent counts as None)."""
    rows = list(reports)
    accuracies = [(row.get("test_accuracy"), row.get("test_samples")) for row in rows]
    samples = sum(row.get("samples") or 0 for row in rows)
    return RoundSummary(
        accuracy=weighted_mean(accuracies),
        accuracy_mean=weighted_mean((accuracy, 1 if weight else 0) for accuracy, weight in accuracies),
        loss=weighted_mean((row.get("test_loss"), row.get("test_samples")) for row in rows),
        train_loss=weighted_mean((row.get("train_loss"), row.get("samples")) for row in rows),
        samples=samples,
        seconds=seconds,
        samples_per_s=samples / seconds if seconds > 0 else None,
    )


def weighted_mean(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """The mean of the values by their weights; None when no value has a weight above 0."""
    known = [(value, weight) for value, weight in pairs if value is not None and weight]
    total = math.fsum(weight for _, weight in known)
    # fsum makes the result independent of the order in which clients reported.
    return math.fsum(value * weight for value, weight in known) / total if total > 0 else None
