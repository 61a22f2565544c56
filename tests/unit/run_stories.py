"""Runs of every kind, and what may happen to them: the material of the state machine's tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from microsfl.core.commands import Aggregate, Command, Evaluate, Reduce, Train, at_work, pending
from microsfl.core.rounds import (
    Aggregated,
    ClientBack,
    ClientLost,
    ClientsAvailable,
    DeadlinePassed,
    Evaluated,
    Event,
    Reduced,
    Started,
    TaskFailed,
    Trained,
    step,
)
from microsfl.core.run_state import Phase, RunState
from microsfl.core.turns import chosen

# What the strategies make of the state machine; the names are those of RunState's fields.
KINDS: tuple[dict[str, bool], ...] = (
    {},
    {"turns": True},
    {"turns": True, "handed_on": True},
    {"split": False},
    {"split": False, "federated": False},
)


@dataclass(frozen=True)
class Story:
    """A run that has begun, anything that may happen to it, and clients that stay: in each round at least a quorum."""

    state: RunState
    events: list[Event]
    present: set[str]


def names(count: int) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(count))


def play(state: RunState, events: Sequence[Event]) -> RunState:
    for event in events:
        state, _ = step(state, event)
    return state


def clean_events(start: RunState) -> list[Event]:
    """What makes a run of its kind go through all its rounds, and some that it has no use for."""
    clients = names(start.needed)
    events: list[Event] = [Started(), ClientsAvailable(clients)]
    for r in range(start.rounds):
        in_order = chosen(start.seed, r, clients, start.participants or len(clients), turns=start.turns)
        events += [Trained(c, r) for c in (*in_order, *clients)]
        events += [Reduced(r, r + 1), Aggregated(r, r + 1)]
        events += [Evaluated(c, r) for c in clients]
    return events


def answer(command: Command) -> Event:
    match command:
        case Train(client, round_):
            return Trained(client, round_)
        case Evaluate(client, round_):
            return Evaluated(client, round_)
        case Reduce(round_):
            return Reduced(round_, round_ + 1)
        case Aggregate(round_):
            return Aggregated(round_, round_ + 1)


def drive(state: RunState, present: set[str]) -> RunState:
    """To the end, with the work of those who are present and ask for it; the others are late, and then lost."""
    steps = 0
    while not state.ended:
        work = [one for one in pending(state) if getattr(one, "client", None) in {None, *present}]
        assert state.phase is not None
        event: Event
        if work:
            event = answer(work[0])
        elif back := state.away & present:
            event = ClientBack(min(back))
        elif not state.overdue:
            event = DeadlinePassed(state.round, state.phase)
        else:
            event = ClientLost(next(one for one in at_work(state) if one not in state.away))
        state, _ = step(state, event)
        steps += 1
        assert steps < 1000, state
    return state


@st.composite
def fresh_runs(draw: st.DrawFn) -> RunState:
    clients, kind = draw(st.integers(1, 4)), draw(st.sampled_from(KINDS))
    drawn = {"seed": draw(st.integers(0, 9)), "participants": draw(st.integers(0, clients))}
    return replace(RunState(draw(st.integers(1, 3)), clients, **kind), **drawn)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    fresh = draw(fresh_runs())
    participants = fresh.participants or fresh.needed
    quorum = draw(st.integers(1, participants))
    clients = names(fresh.needed)
    state = play(replace(fresh, quorum=quorum), [Started(), ClientsAvailable(clients)])

    client, round_ = st.sampled_from(clients), st.integers(0, fresh.rounds - 1)
    absent = draw(st.sets(client, max_size=participants - quorum))
    kinds: list[st.SearchStrategy[Event]] = [
        st.builds(Trained, client, round_),
        st.builds(Evaluated, client, round_),
        st.builds(Reduced, round_, st.integers(1, 9)),
        st.builds(Aggregated, round_, st.integers(1, 9)),
        st.builds(DeadlinePassed, round_, st.sampled_from(Phase)),
        st.builds(ClientLost, client),
        st.builds(ClientBack, client),
    ]
    if absent:
        failing = st.sampled_from(sorted(absent))
        tasks = st.one_of(st.builds(Train, failing, round_), st.builds(Evaluate, failing, round_))
        kinds.append(st.builds(TaskFailed, tasks, st.just("no data")))
    events = draw(st.lists(st.one_of(kinds), max_size=60))
    return Story(state, events, set(clients) - absent)
