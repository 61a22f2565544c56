"""The run state machine: whatever the network does to the order of events, the run ends the same."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microsfl.core.commands import Aggregate, Command, Evaluate, Reduce, Train, missing, pending, task_of
from microsfl.core.rounds import (
    Aggregated,
    ClientBack,
    ClientLost,
    ClientsAvailable,
    DeadlinePassed,
    Evaluated,
    Event,
    Failed,
    Reduced,
    Started,
    StopRequested,
    TaskFailed,
    Trained,
    left_out,
    step,
)
from microsfl.core.run_state import Head, Phase, RunState, Status, adopt, from_json, quorum_of, to_json
from microsfl.core.summary import summarize, weighted_mean
from microsfl.errors import StoreCorrupt
from tests.unit.run_stories import Story, clean_events, drive, fresh_runs, names, play, stories


def training(clients: int = 2, rounds: int = 2) -> RunState:
    return play(RunState(rounds=rounds, needed=clients), [Started(), ClientsAvailable(names(clients))])


@given(fresh_runs(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_any_order_and_any_number_of_deliveries_end_in_the_same_state(
    start: RunState, chance: random.Random, copies: int
) -> None:
    events = clean_events(start)
    expected = play(start, events)
    assert expected.status is Status.FINISHED

    state, before = start, None
    while state != before:
        before = state
        delivered = events * copies
        chance.shuffle(delivered)
        state = play(state, delivered)
    assert state == expected


@given(fresh_runs(), st.data())
def test_what_is_pending_survives_the_way_through_json(start: RunState, data: st.DataObject) -> None:
    events = clean_events(start)
    state = play(start, events[: data.draw(st.integers(0, len(events)))])
    again = from_json(to_json(state))
    assert again == state
    assert pending(again) == pending(state)
    assert to_json(again) == to_json(state)


@given(fresh_runs(), st.randoms(use_true_random=False))
def test_steps_issue_each_pending_command_once(start: RunState, chance: random.Random) -> None:
    events = clean_events(start) * 3
    chance.shuffle(events)
    state, issued = start, list[Command]()
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
    state = play(training(), clean_events(RunState(1, 2))[2:])
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
        DeadlinePassed(0, Phase.EVALUATING),
        DeadlinePassed(1, Phase.TRAINING),
        ClientLost("stranger"),
        ClientBack("c0"),
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
        assert play(ended, [*clean_events(RunState(2, 2)), StopRequested(), Failed("again")]) == ended


def test_a_client_that_gives_up_an_open_task_fails_the_run() -> None:
    state = play(training(), [TaskFailed(Train("c0", 0), "no data")])
    assert (state.status, state.reason) == (Status.FAILED, "client 'c0' could not train in round 0: no data")


def test_a_run_that_is_not_managed_has_no_phases() -> None:
    state, commands = step(RunState(rounds=3, needed=2, managed=False), Started())
    assert (state.status, state.phase, commands) == (Status.RUNNING, None, ())
    assert play(state, clean_events(RunState(3, 2))) == state
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


def test_a_state_from_before_clients_were_drawn_has_them_all_in_training() -> None:
    old = '{"rounds":2,"needed":2,"status":"running","phase":"training","clients":["a","b"],"trained":["a"]}'
    assert pending(from_json(old)) == (Train("b", 0),)


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


# Rounds that go on without somebody


def with_quorum(quorum: int, clients: int = 3, rounds: int = 2) -> RunState:
    return play(RunState(rounds, clients, quorum), [Started(), ClientsAvailable(names(clients))])


@given(stories())
def test_no_round_is_synced_before_its_quorum_and_nobody_is_counted_twice(story: Story) -> None:
    state, synced = story.state, list[int]()
    for event in story.events:
        before = state
        state, commands = step(state, event)
        for command in commands:
            if isinstance(command, Aggregate):
                assert set(command.clients) == state.trained
                assert (command.last is not None) == state.handed_on
        if before.phase is Phase.TRAINING and state.phase not in (Phase.TRAINING, None):
            without = {*left_out(before, state), *before.gave_up}
            without |= {event.task.client} if isinstance(event, TaskFailed) else set()
            assert len(state.trained) >= before.quorum
            assert without == set(state.chosen) - state.trained
            synced.append(before.round)
        assert state.trained <= set(state.chosen) <= set(state.clients)
        assert state.evaluated.isdisjoint(set(state.chosen) - state.trained) or not state.trained
        assert state.round >= before.round
        assert not {*state.trained, *state.gave_up} & set(missing(state)) or state.phase is not Phase.TRAINING
        assert not {*state.evaluated, *state.gave_up} & set(missing(state)) or state.phase is Phase.TRAINING
        assert from_json(to_json(state)) == state
    assert synced == sorted(set(synced))


@given(stories())
def test_whatever_happened_a_run_with_its_quorum_comes_to_its_end(story: Story) -> None:
    assert drive(play(story.state, story.events), story.present).status is Status.FINISHED


@given(stories())
def test_shortcuts_for_many_clients_say_the_same_as_looking_at_each(story: Story) -> None:
    state = story.state
    for event in story.events:
        after, commands = step(state, event)
        assert commands == tuple(command for command in pending(after) if command not in pending(state))
        of_phase = after.chosen if after.phase is Phase.TRAINING else after.clients
        tasks = [task_of(dataclasses.replace(after, turn=None), client) for client in of_phase]
        at_it = after.phase in (Phase.TRAINING, Phase.EVALUATING)
        assert missing(after) == (tuple(task.client for task in tasks if task is not None) if at_it else ())
        state = after


def test_the_deadline_leaves_out_who_is_late_when_the_quorum_is_there() -> None:
    before = play(with_quorum(2), [Trained("c0", 0), Trained("c2", 0)])
    state, commands = step(before, DeadlinePassed(0, Phase.TRAINING))
    assert (state.phase, commands) == (Phase.SYNCING, (Reduce(0), Aggregate(0, ("c0", "c2"))))
    assert (left_out(before, state), state.overdue) == (("c1",), False)
    state = play(state, [Trained("c1", 0), Reduced(0, 1), Aggregated(0, 1)])
    assert pending(state) == (Evaluate("c0", 0), Evaluate("c2", 0))


def test_below_the_quorum_the_deadline_waits_for_it() -> None:
    state = play(with_quorum(2), [Trained("c0", 0), DeadlinePassed(0, Phase.TRAINING)])
    assert (state.phase, state.overdue) == (Phase.TRAINING, True)
    after, _ = step(state, Trained("c2", 0))
    assert (after.phase, after.away) == (Phase.SYNCING, frozenset({"c1"}))
    assert step(state, DeadlinePassed(0, Phase.TRAINING)) == (state, ())


def test_who_was_left_out_is_not_waited_for_until_it_is_back() -> None:
    trained: list[Event] = [Trained("c0", 0), Trained("c2", 0), DeadlinePassed(0, Phase.TRAINING)]
    first = [*trained, Reduced(0, 1), Aggregated(0, 1)]
    state = play(with_quorum(2), [*first, Evaluated("c0", 0), Evaluated("c2", 0)])
    assert (state.round, state.phase, state.away) == (1, Phase.TRAINING, frozenset({"c1"}))
    assert task_of(state, "c1") == Train("c1", 1)
    others = [Trained("c0", 1), Trained("c2", 1)]
    assert play(state, others).phase is Phase.SYNCING
    assert play(state, [ClientBack("c1"), *others]).phase is Phase.TRAINING
    everybody = play(state, [Trained("c0", 1), Trained("c1", 1), Trained("c2", 1)])
    assert (everybody.phase, everybody.away) == (Phase.SYNCING, frozenset())


def test_a_lost_client_is_left_out_at_once_when_the_quorum_is_there_and_waited_for_otherwise() -> None:
    trained: list[Event] = [Trained("c0", 0), Trained("c1", 0)]
    assert play(with_quorum(2), [*trained, ClientLost("c2")]).phase is Phase.SYNCING
    assert play(with_quorum(2), [ClientLost("c2"), *trained]).phase is Phase.SYNCING
    waiting = play(with_quorum(3), [*trained, ClientLost("c2")])
    assert waiting.phase is Phase.TRAINING
    assert play(waiting, [Trained("c2", 0)]).phase is Phase.SYNCING


def test_an_evaluation_never_waits_longer_than_its_deadline_but_not_for_nobody() -> None:
    trained: list[Event] = [*(Trained(one, 0) for one in names(3)), Reduced(0, 1), Aggregated(0, 1)]
    state = play(with_quorum(3), trained)
    lost = play(state, [ClientLost(one) for one in names(3)])
    assert lost.phase is Phase.EVALUATING
    late, _ = step(lost, DeadlinePassed(0, Phase.EVALUATING))
    assert (late.round, late.phase, left_out(lost, late)) == (1, Phase.TRAINING, names(3))
    assert play(lost, [Evaluated("c1", 0)]).round == 1


@pytest.mark.parametrize(("share", "clients", "quorum"), [(1.0, 5, 5), (0.6, 5, 3), (0.61, 5, 4), (0.07, 100, 7)])
def test_a_quorum_is_a_share_rounded_up(share: float, clients: int, quorum: int) -> None:
    assert quorum_of(share, clients) == quorum


# Runs that the store knows already


@pytest.mark.parametrize(
    ("body", "client", "begins"),
    [
        ((0, 0), (0, 0), (Train("a", 0), Train("b", 0))),
        ((3, 1), (0, 0), (Aggregate(0, ()),)),
        ((5, 2), (3, 3), (Reduce(2),)),
        ((5, 2), (2, 2), (Evaluate("a", 1), Evaluate("b", 1))),
        ((9, 3), (3, 3), (Evaluate("a", 2), Evaluate("b", 2))),
    ],
)
def test_an_adopted_run_repeats_no_finished_round(
    body: tuple[int, int], client: tuple[int, int], begins: tuple[Command, ...]
) -> None:
    state = adopt(RunState(3, 2, 2), Head(*body), Head(*client))
    assert (state.phase, pending(state), from_json(to_json(state))) == (None, (), state)
    state, commands = step(play(state, [Started()]), ClientsAvailable(("a", "b")))
    assert commands == pending(state) == begins
    assert (state.body_version, state.client_version) == (body[0], client[0])
    assert drive(state, {"a", "b"}).status is Status.FINISHED


@pytest.mark.parametrize(
    ("head", "begins"),
    [
        (None, (Train("a", 0), Train("b", 0))),
        (Head(0, 0), (Train("a", 0), Train("b", 0))),
        (Head(2, 2), (Evaluate("a", 1), Evaluate("b", 1))),
        (Head(2, 2, sealed=True), (Aggregate(2, ()),)),
    ],
)
def test_a_run_without_a_body_area_is_adopted_by_what_there_is(head: Head | None, begins: tuple[Command, ...]) -> None:
    state = adopt(RunState(3, 2, split=False, federated=head is not None), None, head)
    state, commands = step(play(state, [Started()]), ClientsAvailable(("a", "b")))
    assert commands == pending(state) == begins
    assert (state.body_version, state.client_version) == (0, head.version if head else 0)
    assert drive(state, {"a", "b"}).status is Status.FINISHED


def test_areas_that_are_rounds_apart_are_refused() -> None:
    with pytest.raises(StoreCorrupt, match="round 5 open and the client area round 3"):
        adopt(RunState(9, 2), Head(5, 5), Head(3, 3))
