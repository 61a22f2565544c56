"""What a run's state leaves to be done, and by whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from .run_state import Phase, RunState


@dataclass(frozen=True)
class Train:
    kind: ClassVar[Literal["train"]] = "train"
    client: str
    round: int


@dataclass(frozen=True)
class Evaluate:
    kind: ClassVar[Literal["evaluate"]] = "evaluate"
    client: str
    round: int


@dataclass(frozen=True)
class Reduce:
    round: int


@dataclass(frozen=True)
class Aggregate:
    round: int
    clients: tuple[str, ...]  # whose training counts in this round, sorted; none: whoever has an update there
    last: str | None = None  # where client-side weights are handed on: whose are the new ones; none: not known


Task = Train | Evaluate
Command = Task | Reduce | Aggregate


def pending(state: RunState) -> tuple[Command, ...]:
    """Every command that is open in `state`, in client order; none before the run begins or after it ended."""
    match state.phase:
        case Phase.SYNCING:
            reduce = () if state.reduced else (Reduce(state.round),)
            aggregate = Aggregate(state.round, tuple(sorted(state.trained)), state.last)
            return reduce if state.aggregated else (*reduce, aggregate)
        case Phase.TRAINING:
            return tuple(Train(client, state.round) for client in at_work(state))
        case Phase.EVALUATING:
            return tuple(Evaluate(client, state.round) for client in at_work(state))
    return ()


def task_of(state: RunState, client: str) -> Task | None:
    """What `client` has to do now, if anything."""
    if state.turn not in (None, client) or not _is_missing(state, client):
        return None
    return Train(client, state.round) if state.phase is Phase.TRAINING else Evaluate(client, state.round)


def is_open(state: RunState, task: Task) -> bool:
    """Whether a report on `task` counts: it is handed out now, or was before its client was passed over."""
    passed_over = task.client in state.away and _is_missing(state, task.client)
    handed_out = replace(state, turn=None) if passed_over else state
    return task == task_of(handed_out, task.client)


def at_work(state: RunState) -> tuple[str, ...]:
    """The clients that have a task now, in order: those who are missing or, with turns, the one whose turn it is."""
    return missing(state) if state.turn is None else (state.turn,)


def missing(state: RunState) -> tuple[str, ...]:
    """The clients of this phase that are not done with it, in order."""
    done = _done(state)
    return tuple(client for client in _of_phase(state) if client not in done)


def takes_part(state: RunState, client: str) -> bool:
    """Whether the round, once trained, has this client in it: unless it was to train and was left out.

    Of an adopted round nobody knows who trained: all do.
    """
    return client in state.trained or not state.trained or client not in state.chosen


def _is_missing(state: RunState, client: str) -> bool:
    return client in _of_phase(state) and not _is_done(state, client)


def _of_phase(state: RunState) -> tuple[str, ...]:
    """Whom the phase is of, those who were left out of the training before an evaluation included."""
    if state.phase is Phase.TRAINING:
        return state.chosen
    return state.clients if state.phase is Phase.EVALUATING else ()


def _done(state: RunState) -> frozenset[str]:
    """Everybody of whom `_is_done` is true, in one go: there may be thousands."""
    if state.phase is Phase.TRAINING:
        return state.trained.union(state.gave_up)
    left_out = frozenset(state.chosen) - state.trained if state.trained else ()
    return state.evaluated.union(state.gave_up, left_out)


def _is_done(state: RunState, client: str) -> bool:
    if state.phase is Phase.TRAINING:
        return client in state.trained or client in state.gave_up
    return client in state.evaluated or client in state.gave_up or not takes_part(state, client)
