"""The rounds of a run as a pure transition: `(state, event) -> (state, commands)`.

Nothing here knows a clock, a socket or a database. What is to be done follows from the state alone (`pending`), so a
process that restarts asks the state that it saved; and an event that does not fit the state (a duplicate, a late or a
replayed one, one that came before its time) changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from .run_state import Phase, RunState, Status


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
class DeadlinePassed:
    """Whoever is not done with this phase of this round is late."""

    round: int
    phase: Phase


@dataclass(frozen=True)
class ClientLost:
    """A client that is waited for fell silent; the round need not wait for it when the quorum is there."""

    client: str


@dataclass(frozen=True)
class ClientBack:
    """A client that was left out or lost asks for work again."""

    client: str


@dataclass(frozen=True)
class Failed:
    reason: str


@dataclass(frozen=True)
class StopRequested:
    pass


@dataclass(frozen=True)
class ResumeRequested:
    """Go on with a run that failed or was stopped; `at` is where the store's areas stand."""

    at: RunState


Event = (
    Started | ClientsAvailable | Trained | Reduced | Aggregated | Evaluated | TaskFailed | DeadlinePassed | ClientLost
    | ClientBack | Failed | StopRequested | ResumeRequested
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
    if state.phase is Phase.EVALUATING and client not in state.evaluated and takes_part(state, client):
        return Evaluate(client, state.round)
    return None


def takes_part(state: RunState, client: str) -> bool:
    """Whether the round, once trained, has this client in it. Of an adopted round nobody knows who trained: all do."""
    return client in state.trained or not state.trained


def missing(state: RunState) -> tuple[str, ...]:
    """The clients of this phase that are not done with it, in order."""
    return tuple(client for client in state.clients if task_of(state, client) is not None)


def left_out(before: RunState, after: RunState) -> tuple[str, ...]:
    """Whom the phase that `before` was in ended without, if the step to `after` ended it."""
    ended = (before.round, before.phase) != (after.round, after.phase)
    if not ended or after.status not in (Status.RUNNING, Status.FINISHED):
        return ()
    return tuple(client for client in missing(before) if client in after.away)


def _after(state: RunState, event: Event) -> RunState:
    match event:
        case Failed(reason) if not state.ended:
            return _end(state, Status.FAILED, reason)
        case StopRequested() if not state.ended:
            return _end(state, Status.STOPPED)
        case Started() if state.status is Status.CREATED:
            return replace(state, status=Status.WAITING if state.managed else Status.RUNNING)
        case ResumeRequested(at) if state.status in (Status.STOPPED, Status.FAILED):
            status = Status.WAITING if at.managed else Status.RUNNING
            return replace(at, status=status, clients=state.clients)  # whose data is whose must not change
        case ClientsAvailable(ids) if state.status is Status.WAITING and len(set(ids)) >= state.needed:
            if not set(state.clients) <= set(ids):
                return state
            clients = state.clients or tuple(sorted(set(ids))[: state.needed])
            return replace(state, status=Status.RUNNING, phase=state.begins, clients=clients)
        case _ if state.phase is not None:
            return _within_round(state, event)
    return state


def _within_round(state: RunState, event: Event) -> RunState:
    match event:
        case Trained(client, round_) if task_of(state, client) == Train(client, round_):
            return _when_trained(_back(replace(state, trained=state.trained | {client}), client))
        case Reduced(round_, version) if _syncs(state, round_) and not state.reduced:
            return _when_synced(replace(state, reduced=True, body_version=version))
        case Aggregated(round_, version) if _syncs(state, round_) and not state.aggregated:
            return _when_synced(replace(state, aggregated=True, client_version=version))
        case Evaluated(client, round_) if task_of(state, client) == Evaluate(client, round_):
            return _when_evaluated(_back(replace(state, evaluated=state.evaluated | {client}), client))
        case DeadlinePassed(round_, phase) if (state.round, state.phase) == (round_, phase) and missing(state):
            return _when_enough(replace(state, overdue=True))
        case ClientLost(client) if task_of(state, client) is not None:
            return _when_enough(replace(state, away=state.away | {client}))
        case ClientBack(client):
            return _back(state, client)
        case TaskFailed(task, reason) if task_of(state, task.client) == task:
            return _end(state, Status.FAILED, reason)
    return state


def _syncs(state: RunState, round_: int) -> bool:
    return state.phase is Phase.SYNCING and state.round == round_


def _back(state: RunState, client: str) -> RunState:
    return replace(state, away=state.away - {client}) if client in state.away else state


def _begin_round(state: RunState, round_: int) -> RunState:
    return replace(
        state,
        phase=Phase.TRAINING,
        round=round_,
        trained=frozenset(),
        reduced=False,
        aggregated=False,
        evaluated=frozenset(),
        overdue=False,
    )


def _when_enough(state: RunState) -> RunState:
    return _when_trained(state) if state.phase is Phase.TRAINING else _when_evaluated(state)


def _when_trained(state: RunState) -> RunState:
    quorum = state.quorum or len(state.clients)
    if len(state.trained) < quorum or not _can_go_on(state):
        return state
    return replace(_leave_out(state), phase=Phase.SYNCING)


def _when_synced(state: RunState) -> RunState:
    return replace(state, phase=Phase.EVALUATING) if state.reduced and state.aggregated else state


def _when_evaluated(state: RunState) -> RunState:
    # Without the deadline somebody must have evaluated: those who are lost may be on their way back.
    if not _can_go_on(state) or not (state.evaluated or state.overdue):
        return state
    state = _leave_out(state)
    if state.round + 1 < state.rounds:
        return _begin_round(state, state.round + 1)
    return _end(state, Status.FINISHED)


def _can_go_on(state: RunState) -> bool:
    """Whether nobody is waited for any more: each is done or away, or it is too late anyway."""
    return state.overdue or state.away.issuperset(missing(state))


def _leave_out(state: RunState) -> RunState:
    return replace(state, away=state.away.union(missing(state)), overdue=False)


def _end(state: RunState, status: Status, reason: str | None = None) -> RunState:
    return replace(state, status=status, phase=None, reason=reason)
