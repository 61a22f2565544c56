"""The run state machine: whatever the network does to the order of events, the run ends the same."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microsfl.core.rounds import (
    Aggregate,
    Aggregated,
    ClientsAvailable,
    Command,
    Evaluate,
    Evaluated,
    Event,
    Failed,
    Phase,
    Reduce,
    Reduced,
    RunState,
    Started,
    Status,
    StopRequested,
    TaskFailed,
    Train,
    Trained,
    from_json,
    pending,
    step,
    summarize,
    task_of,
    to_json,
    weighted_mean,
)


def clean_events(clients: tuple[str, ...], rounds: int) -> list[Event]:
    events: list[Event] = [Started(), ClientsAvailable(clients)]
    for r in range(rounds):
        events += [Trained(c, r) for c in clients]
        events += [Reduced(r, r + 1), Aggregated(r, r + 1)]
        events += [Evaluated(c, r) for c in clients]
    return events


def play(state: RunState, events: list[Event]) -> RunState:
    for event in events:
        state, _ = step(state, event)
    return state


def names(count: int) -> tuple[str, ...]:
    return tuple(f"c{i}" for i in range(count))


def training(clients: int = 2, rounds: int = 2) -> RunState:
    return play(RunState(rounds=rounds, needed=clients), [Started(), ClientsAvailable(names(clients))])


@given(st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False), st.integers(1, 3))
def test_any_order_and_any_number_of_deliveries_end_in_the_same_state(
    clients: int, rounds: int, chance: random.Random, copies: int
) -> None:
    events = clean_events(names(clients), rounds)
    start = RunState(rounds=rounds, needed=clients)
    expected = play(start, events)
    assert expected.status is Status.FINISHED

    state, before = start, None
    while state != before:
        before = state
        delivered = events * copies
        chance.shuffle(delivered)
        state = play(state, delivered)
    assert state == expected


@given(st.integers(1, 3), st.integers(1, 3), st.data())
def test_what_is_pending_survives_the_way_through_json(clients: int, rounds: int, data: st.DataObject) -> None:
    events = clean_events(names(clients), rounds)
    state = play(RunState(rounds=rounds, needed=clients), events[: data.draw(st.integers(0, len(events)))])
    again = from_json(to_json(state))
    assert again == state
    assert pending(again) == pending(state)
    assert to_json(again) == to_json(state)


@given(st.integers(1, 3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_steps_issue_each_pending_command_once(clients: int, rounds: int, chance: random.Random) -> None:
    events = clean_events(names(clients), rounds) * 3
    chance.shuffle(events)
    state, issued = RunState(rounds=rounds, needed=clients), list[Command]()
    for event in events:
        state, commands = step(state, event)
        issued += commands
        assert set(pending(state)) <= set(issued)
    assert len(issued) == len(set(issued))


def test_a_run_goes_through_its_phases() -> None:
    state = RunState(rounds=1, needed=2)
    state, commands = step(state, Started())
    assert (state.status, commands) == (Status.WAITING, ())
    state, commands = step(state, ClientsAvailable(("only",)))
    assert (state.status, commands) == (Status.WAITING, ())
    state, commands = step(state, ClientsAvailable(("z", "b", "a", "b")))
    assert state.clients == ("a", "b")
    assert (state.phase, commands) == (Phase.TRAINING, (Train("a", 0), Train("b", 0)))
    state, commands = step(state, Trained("b", 0))
    assert commands == ()
    state, commands = step(state, Trained("a", 0))
    assert (state.phase, commands) == (Phase.SYNCING, (Reduce(0), Aggregate(0, ("a", "b"))))
    state, commands = step(state, Aggregated(0, 1))
    assert commands == ()
    state, commands = step(state, Reduced(0, 7))
    assert (state.phase, commands) == (Phase.EVALUATING, (Evaluate("a", 0), Evaluate("b", 0)))
    assert (state.body_version, state.client_version) == (7, 1)
    state = play(state, [Evaluated("a", 0), Evaluated("b", 0)])
    assert (state.status, state.phase, pending(state)) == (Status.FINISHED, None, ())


def test_the_next_round_begins_with_nothing_done() -> None:
    state = play(training(), clean_events(names(2), 1)[2:])
    assert (state.round, state.phase) == (1, Phase.TRAINING)
    assert pending(state) == (Train("c0", 1), Train("c1", 1))
    assert (state.body_version, state.client_version) == (1, 1)


@pytest.mark.parametrize(
    "event",
    [
        Trained("c0", 1),
        Trained("stranger", 0),
        Evaluated("c0", 0),
        Reduced(0, 1),
        Aggregated(0, 1),
        Started(),
        ClientsAvailable(("x", "y")),
        TaskFailed(Train("c0", 1), "late"),
        TaskFailed(Evaluate("c0", 0), "wrong kind"),
        TaskFailed(Train("stranger", 0), "not in the run"),
    ],
    ids=repr,
)
def test_events_that_do_not_fit_the_state_change_nothing(event: Event) -> None:
    state = training()
    assert step(state, event) == (state, ())


@pytest.mark.parametrize("event", [Reduced(1, 9), Aggregated(1, 9), Trained("c0", 0)], ids=repr)
def test_events_of_another_round_are_ignored_while_syncing(event: Event) -> None:
    state = play(training(), [Trained("c0", 0), Trained("c1", 0)])
    assert step(state, event) == (state, ())


@pytest.mark.parametrize(("last", "status"), [(StopRequested(), Status.STOPPED), (Failed("why"), Status.FAILED)])
def test_nothing_leaves_an_end(last: Event, status: Status) -> None:
    for state in (RunState(rounds=2, needed=2), training()):
        ended = play(state, [last])
        assert (ended.status, pending(ended)) == (status, ())
        assert play(ended, [*clean_events(names(2), 2), StopRequested(), Failed("again")]) == ended


def test_a_client_that_gives_up_an_open_task_fails_the_run() -> None:
    state = play(training(), [TaskFailed(Train("c0", 0), "no data")])
    assert (state.status, state.reason) == (Status.FAILED, "no data")


def test_a_run_that_is_not_managed_has_no_phases() -> None:
    state, commands = step(RunState(rounds=3, needed=2, managed=False), Started())
    assert (state.status, state.phase, commands) == (Status.RUNNING, None, ())
    assert play(state, clean_events(names(2), 3)) == state
    assert play(state, [StopRequested()]).status is Status.STOPPED


def test_only_clients_of_the_run_have_tasks() -> None:
    assert task_of(training(), "c0") == Train("c0", 0)
    assert task_of(training(), "stranger") is None
    assert task_of(RunState(rounds=1, needed=1), "c0") is None


@pytest.mark.parametrize("text", ["[1]", "3", "{}", '{"rounds":1}', '{"rounds":1,"needed":1,"status":"odd"}', "{"])
def test_what_is_no_state_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_json(text)


def test_fields_that_older_states_lack_have_defaults() -> None:
    assert from_json('{"rounds":4,"needed":2}') == RunState(rounds=4, needed=2)


def test_summaries_weigh_by_samples() -> None:
    reports: list[dict[str, float | None]] = [
        {"train_loss": 1.0, "samples": 30, "test_loss": 2.0, "test_accuracy": 0.5, "test_samples": 10},
        {"train_loss": 3.0, "samples": 10, "test_loss": 4.0, "test_accuracy": 1.0, "test_samples": 30},
        {"train_loss": None, "samples": 0, "test_loss": None, "test_accuracy": None, "test_samples": 0},
    ]
    summary = summarize(reports, 2.0)
    assert summary.accuracy == pytest.approx(0.875)
    assert summary.accuracy_mean == pytest.approx(0.75)
    assert summary.loss == pytest.approx(3.5)
    assert summary.train_loss == pytest.approx(1.5)
    assert (summary.samples, summary.seconds, summary.samples_per_s) == (40, 2.0, 20.0)


def test_a_mean_of_nothing_is_none() -> None:
    summary = summarize([{"samples": 0}, {}], 0.0)
    values = dataclasses.asdict(summary)
    assert {name for name, value in values.items() if value is not None} == {"samples", "seconds"}
    assert weighted_mean([]) is None
    assert weighted_mean([(1.0, 0), (None, 3)]) is None
