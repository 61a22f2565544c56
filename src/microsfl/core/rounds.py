"""The rounds of a run as a pure transition: `(state, event) -> (state, commands)`.

Nothing here knows a clock, a socket or a database. What is to be done follows from the state alone (`pending`), so a
process that restarts asks the state that it saved; and an event that does not fit the state (a duplicate, a late or a
replayed one, one that came before its time) changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .commands import Command, Evaluate, Task, Train, is_open, missing, pending, task_of
from .run_state import Phase, RunState, Status
from .turns import chosen


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
    """A client gave a task up, and said why; of no account unless that task is open."""

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


# How many clients' reasons a failed run names: there may be hundreds, and the first will do.
REASONS_TOLD = 5


def step(state: RunState, event: Event) -> tuple[RunState, tuple[Command, ...]]:
    """The state after `event`, and the commands that are pending now and were not before.

    An event that does not fit returns the same state and no command.
    """
    after = _hand_turn(_after(state, event))
    if _calls_nobody(state, after):
        return after, ()
    before = set(pending(state))
    return after, tuple(command for command in pending(after) if command not in before)


def _calls_nobody(before: RunState, after: RunState) -> bool:
    """Whether the step stays in a phase that waits for clients, with the same turn: there the work only gets less.

    That spares a step for each of thousands of clients to look at all of them.
    """
    if after.phase not in (Phase.TRAINING, Phase.EVALUATING):
        return after is before
    return (before.phase, before.round, before.turn) == (after.phase, after.round, after.turn)


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
            return _begin(replace(state, status=Status.RUNNING, clients=clients))
        case _ if state.phase is not None:
            return _within_round(state, event)
    return state


def _within_round(state: RunState, event: Event) -> RunState:
    match event:
        case Trained(client, round_) if is_open(state, Train(client, round_)):
            trained = replace(state, trained=state.trained | {client}, last=_last(state, client))
            return _when_trained(_back(trained, client))
        case Reduced(round_, version) if _syncs(state, round_) and not state.reduced:
            return _when_synced(replace(state, reduced=True, body_version=version))
        case Aggregated(round_, version) if _syncs(state, round_) and not state.aggregated:
            return _when_synced(replace(state, aggregated=True, client_version=version))
        case Evaluated(client, round_) if task_of(state, client) == Evaluate(client, round_):
            return _when_evaluated(_back(replace(state, evaluated=state.evaluated | {client}), client))
        case DeadlinePassed(round_, phase) if (state.round, state.phase) == (round_, phase):
            return state if state.overdue or not missing(state) else _when_overdue(replace(state, overdue=True))
        case ClientLost(client) if client in missing(state):
            return _when_enough(replace(state, away=state.away | {client}))
        case ClientBack(client):
            return _back(state, client)
        case TaskFailed(task, reason) if is_open(state, task):
            return _when_given_up(_back(state, task.client), task, reason)
    return state


def _syncs(state: RunState, round_: int) -> bool:
    return state.phase is Phase.SYNCING and state.round == round_


def _back(state: RunState, client: str) -> RunState:
    return replace(state, away=state.away - {client}) if client in state.away else state


def _last(state: RunState, client: str) -> str | None:
    """Whose client-side weights the next one begins with.

    One that lost its turn may have uploaded before it did, and an upload counts once: so its weights may come from
    before those of whoever trained in the meantime. While nobody has, they cannot.
    """
    return client if state.handed_on and (client not in state.passed or state.last is None) else state.last


def _hand_turn(state: RunState) -> RunState:
    """With turns: to the next one, when whoever has it is done or away. One that comes back takes it from nobody."""
    waiting = missing(state) if state.turns and state.phase is Phase.TRAINING else ()
    if state.turn in waiting and state.turn not in state.away:
        return state
    there = [client for client in waiting if client not in state.away]
    turn = next(iter(there or waiting), None)
    if turn == state.turn:
        return state
    passed = state.passed | {state.turn} if state.turn in waiting else state.passed
    return replace(state, turn=turn, passed=frozenset(one for one in passed if one is not None))


def _chosen(state: RunState, round_: int) -> tuple[str, ...]:
    participants = state.participants or len(state.clients)
    return chosen(state.seed, round_, state.clients, participants, turns=state.turns)


def _begin(state: RunState) -> RunState:
    """The first round that the run begins with, or goes on with."""
    state = replace(state, phase=state.begins, chosen=_chosen(state, state.round))
    return _begin_syncing(state) if state.begins is Phase.SYNCING else state


def _begin_round(state: RunState, round_: int) -> RunState:
    return replace(
        state,
        phase=Phase.TRAINING,
        round=round_,
        chosen=_chosen(state, round_),
        trained=frozenset(),
        last=None,
        passed=frozenset(),
        reduced=False,
        aggregated=False,
        evaluated=frozenset(),
        overdue=False,
        gave_up={},
    )


def _begin_syncing(state: RunState) -> RunState:
    """Where there is no body, or nothing federated, that part is done before it begins."""
    reduced, aggregated = state.reduced or not state.split, state.aggregated or not state.federated
    return _when_synced(replace(state, phase=Phase.SYNCING, reduced=reduced, aggregated=aggregated, gave_up={}))


def _when_overdue(state: RunState) -> RunState:
    if state.turn is not None and _can_do_without(state):
        state = replace(state, away=state.away | {state.turn})  # while it is late, the next ones can have their turns
    return _when_enough(state)


def _when_given_up(state: RunState, task: Task, reason: str) -> RunState:
    if not _can_do_without(state):
        what = f"client '{task.client}' could not {task.kind} in round {task.round}"
        return _end(state, Status.FAILED, f"{what}: {reason}")
    state = replace(state, gave_up={**state.gave_up, task.client: reason})
    training, left = state.phase is Phase.TRAINING, len(missing(state))
    if training and len(state.trained) + left < state.quorum:
        can = f"at most {len(state.trained) + left} of {len(state.chosen)} clients can train"
        why = f"the quorum of round {task.round} is {state.quorum}, and {can}: {_reasons(state)}"
        return _end(state, Status.FAILED, why)
    if not training and not state.evaluated and not left:
        return _end(state, Status.FAILED, f"nobody is left to evaluate round {task.round}: {_reasons(state)}")
    return _when_enough(state)


def _can_do_without(state: RunState) -> bool:
    """Whether the quorum lets a round go on without somebody."""
    return 0 < state.quorum < len(state.chosen)


def _reasons(state: RunState) -> str:
    given = [f"{client}: {reason}" for client, reason in sorted(state.gave_up.items())]
    more = [f"and {len(given) - REASONS_TOLD} more"] if len(given) > REASONS_TOLD else []
    return "; ".join(given[:REASONS_TOLD] + more)


def _when_enough(state: RunState) -> RunState:
    return _when_trained(state) if state.phase is Phase.TRAINING else _when_evaluated(state)


def _when_trained(state: RunState) -> RunState:
    quorum = state.quorum or len(state.chosen)
    if len(state.trained) < quorum or not _can_go_on(state):
        return state
    return _begin_syncing(_leave_out(state))


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
    if state.overdue:
        return True
    # At most these are not waited for; while they are too few, there is no need to look at each.
    done = len(state.evaluated) + len(state.chosen) - len(state.trained)
    if state.phase is Phase.EVALUATING and done + len(state.gave_up) + len(state.away) < len(state.clients):
        return False
    return state.away.issuperset(missing(state))


def _leave_out(state: RunState) -> RunState:
    return replace(state, away=state.away.union(missing(state)), overdue=False)


def _end(state: RunState, status: Status, reason: str | None = None) -> RunState:
    return replace(state, status=status, phase=None, reason=reason)
