"""Rounds of those who were chosen, one after another where they take turns, and without those who report a failure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microsfl.core.commands import Aggregate, Evaluate, Train, missing, pending, task_of
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
    ResumeRequested,
    Started,
    TaskFailed,
    Trained,
    left_out,
    step,
)
from microsfl.core.run_state import Head, Phase, RunState, Status, adopt, from_json, to_json
from microsfl.core.turns import chosen
from tests.unit.run_stories import Story, names, play, stories


def begun(start: RunState) -> RunState:
    return play(start, [Started(), ClientsAvailable(names(start.needed))])


def in_turns(quorum: int = 0, clients: int = 3, *, handed_on: bool = True) -> tuple[RunState, list[str]]:
    """A run of clients that take turns, and the order in which they do so in its first round."""
    state = begun(RunState(2, clients, quorum, turns=True, handed_on=handed_on))
    return state, list(state.chosen)


def failed(client: str, round_: int = 0, reason: str = "no data") -> Event:
    return TaskFailed(Train(client, round_), reason)


SYNCED: list[Event] = [Reduced(0, 1), Aggregated(0, 1)]


# Some are chosen


@given(st.integers(1, 6), st.data(), st.booleans())
def test_the_chosen_train_and_everybody_evaluates(clients: int, data: st.DataObject, turns: bool) -> None:
    participants = data.draw(st.integers(1, clients))
    state = begun(RunState(3, clients, seed=7, participants=participants, turns=turns))
    for round_ in range(3):
        assert state.chosen == chosen(7, round_, names(clients), participants, turns=turns)
        assert set(missing(state)) == set(state.chosen)
        assert all(task_of(state, one) is None for one in state.clients if one not in state.chosen)
        state = play(state, [Trained(one, round_) for one in state.chosen])
        assert pending(state)[1:] == (Aggregate(round_, tuple(sorted(state.chosen))),)
        state = play(state, [Reduced(round_, 1), Aggregated(round_, 1)])
        assert pending(state) == tuple(Evaluate(one, round_) for one in names(clients))
        state = play(state, [Evaluated(one, round_) for one in names(clients)])
    assert state.status is Status.FINISHED


def test_who_was_chosen_and_left_out_does_not_evaluate_and_who_was_not_chosen_does() -> None:
    state = begun(RunState(1, 4, quorum=1, participants=2))
    first, second = state.chosen
    others = set(names(4)) - {first, second}
    state = play(state, [Trained(first, 0), ClientLost(second), *SYNCED])
    assert {one.client for one in pending(state) if isinstance(one, Evaluate)} == {first, *others}


def test_a_resumed_and_an_adopted_run_draw_their_clients_too() -> None:
    at = adopt(RunState(5, 4, seed=3, participants=2), Head(4, 2, sealed=True), Head(3, 3))
    stopped = play(begun(RunState(5, 4, seed=3, participants=2)), [Failed("why"), ResumeRequested(at)])
    for state in (stopped, play(at, [Started()])):
        again = play(state, [ClientsAvailable(names(4))])
        assert (again.round, again.chosen) == (2, chosen(3, 2, names(4), 2, turns=False))
        assert play(again, [Reduced(2, 5)]).phase is Phase.EVALUATING


# Turns


def test_clients_train_one_after_another_and_each_next_one_is_called() -> None:
    state, (a, b, c) = in_turns()
    assert pending(state) == (Train(a, 0),)
    assert step(state, Trained(b, 0)) == (state, ())
    for done, following in ((a, b), (b, c)):
        state, commands = step(state, Trained(done, 0))
        assert commands == pending(state) == (Train(following, 0),)
        assert state.last == done
    state, commands = step(state, Trained(c, 0))
    assert commands[1:] == (Aggregate(0, names(3), last=c),)
    state = play(state, [*SYNCED, *(Evaluated(one, 0) for one in names(3))])
    assert (state.round, state.last, len(pending(state))) == (1, None, 1)


def test_a_lost_client_is_passed_over_and_takes_the_turn_from_nobody_when_it_is_back() -> None:
    state, (a, b, c) = in_turns(quorum=2)
    state, commands = step(state, ClientLost(a))
    assert commands == pending(state) == (Train(b, 0),)
    state = play(state, [ClientBack(a)])
    assert pending(state) == (Train(b, 0),)
    state = play(state, [Trained(b, 0)])
    assert pending(state) == (Train(a, 0),)
    assert play(state, [ClientLost(a), Trained(c, 0)]).phase is Phase.SYNCING


def test_when_only_those_who_are_away_are_left_the_first_of_them_has_the_turn() -> None:
    state, (a, b, c) = in_turns()
    state = play(state, [ClientLost(a), ClientLost(c), Trained(b, 0)])
    assert pending(state) == (Train(a, 0),)
    assert pending(play(state, [ClientBack(c)])) == (Train(c, 0),)


def test_what_was_trained_by_who_was_passed_over_counts_and_breaks_no_chain() -> None:
    state, (a, b, c) = in_turns(quorum=3)
    state = play(state, [Trained(a, 0), ClientLost(b), Trained(b, 0)])
    assert (state.trained, state.last, pending(state)) == ({a, b}, a, (Train(c, 0),))
    assert pending(play(state, [Trained(c, 0)]))[-1] == Aggregate(0, names(3), last=c)


def test_who_lost_its_turn_to_another_is_never_the_last() -> None:
    """It may have uploaded when it had its turn, and an upload counts once: c's training must not go with it."""
    state, (a, b, c) = in_turns(quorum=3)
    state = play(state, [Trained(a, 0), ClientLost(b), Trained(c, 0), ClientBack(b)])
    assert (state.last, pending(state)) == (c, (Train(b, 0),))
    assert pending(play(state, [Trained(b, 0)]))[-1] == Aggregate(0, names(3), last=c)


def test_a_late_turn_is_passed_over_when_the_quorum_can_do_without_it() -> None:
    state, (a, b, c) = in_turns(quorum=2)
    late, commands = step(state, DeadlinePassed(0, Phase.TRAINING))
    assert commands == pending(late) == (Train(b, 0),)
    assert step(late, DeadlinePassed(0, Phase.TRAINING)) == (late, ())
    assert pending(play(late, [Trained(b, 0)])) == (Train(c, 0),)
    both = play(late, [Trained(b, 0), Trained(c, 0)])
    assert (both.phase, both.away, both.last) == (Phase.SYNCING, {a}, c)
    everybody, (first, *_) = in_turns()
    assert pending(play(everybody, [DeadlinePassed(0, Phase.TRAINING)])) == (Train(first, 0),)


@given(stories())
def test_a_turn_ends_by_being_done_given_up_or_away(story: Story) -> None:
    state = story.state
    for event in story.events:
        before = state
        state, commands = step(state, event)
        assert set(commands) == set(pending(state)) - set(pending(before))
        if not state.turns or state.phase is not Phase.TRAINING:
            assert state.turn is None
            continue
        assert len(pending(state)) == 1
        assert state.turn not in state.away or state.away.issuperset(missing(state))
        if before.phase is Phase.TRAINING and before.round == state.round and before.turn != state.turn:
            assert before.turn in {*state.trained, *state.gave_up, *before.away, *state.away}
        assert state.last is None or state.last in state.trained


# Nothing to sync


def test_a_run_without_split_servers_has_nothing_to_reduce() -> None:
    state = play(begun(RunState(1, 2, split=False)), [Trained("c0", 0), Trained("c1", 0)])
    assert pending(state) == (Aggregate(0, ("c0", "c1")),)
    assert play(state, [Reduced(0, 9)]) == state
    state = play(state, [Aggregated(0, 1)])
    assert (state.phase, state.body_version, state.client_version) == (Phase.EVALUATING, 0, 1)


def test_a_run_of_which_nothing_leaves_the_clients_goes_straight_on_to_evaluating() -> None:
    state, commands = begun(RunState(1, 1, split=False, federated=False)), ()
    state, commands = step(state, Trained("c0", 0))
    assert commands == pending(state) == (Evaluate("c0", 0),)


# Reported failures


def test_with_a_quorum_a_reported_failure_costs_the_client_its_round() -> None:
    before = begun(RunState(2, 3, quorum=2))
    state, commands = step(before, failed("c1"))
    assert (commands, state.gave_up, left_out(before, state)) == ((), {"c1": "no data"}, ())
    assert step(state, failed("c1")) == (state, ())
    assert step(state, Trained("c1", 0)) == (state, ())
    assert step(state, ClientBack("c1")) == (state, ())
    state = play(state, [Trained("c0", 0), Trained("c2", 0)])
    assert (state.phase, state.trained) == (Phase.SYNCING, {"c0", "c2"})
    state = play(state, SYNCED)
    assert pending(state) == (Evaluate("c0", 0), Evaluate("c2", 0))
    state = play(state, [Evaluated("c0", 0), Evaluated("c2", 0)])
    assert (state.round, state.gave_up, len(pending(state))) == (1, {}, 3)


def test_the_last_one_s_failure_ends_the_wait_for_it() -> None:
    state = play(begun(RunState(2, 3, quorum=2)), [Trained("c0", 0), Trained("c2", 0)])
    state, commands = step(state, failed("c1"))
    assert (state.phase, commands[1:]) == (Phase.SYNCING, (Aggregate(0, ("c0", "c2")),))


def test_a_run_fails_when_its_quorum_cannot_be_met_any_more() -> None:
    state = play(begun(RunState(2, 4, quorum=2)), [failed("c1", reason="no disk"), failed("c3"), failed("c0")])
    assert state.status is Status.FAILED
    assert state.reason == (
        "the quorum of round 0 is 2, and at most 1 of 4 clients can train: c0: no data; c1: no disk; c3: no data"
    )


def test_a_reason_names_the_first_of_many() -> None:
    state = play(begun(RunState(1, 20, quorum=1)), [failed(one) for one in names(20)])
    assert state.reason is not None
    assert state.reason.endswith("c11: no data; c12: no data; and 15 more")


@pytest.mark.parametrize("quorum", [0, 3])
def test_without_a_quorum_below_all_a_reported_failure_ends_the_run(quorum: int) -> None:
    state = play(begun(RunState(2, 3, quorum)), [failed("c1")])
    assert (state.status, state.reason) == (Status.FAILED, "client 'c1' could not train in round 0: no data")


def test_an_evaluation_goes_on_without_those_who_could_not_until_nobody_is_left() -> None:
    trained: list[Event] = [*(Trained(one, 0) for one in names(3)), *SYNCED]
    state = play(begun(RunState(2, 3, quorum=2)), trained)
    broken: list[Event] = [TaskFailed(Evaluate(one, 0), f"{one} broke") for one in names(3)]
    assert play(state, [*broken[:2], Evaluated("c2", 0)]).round == 1
    following = play(state, [Evaluated("c2", 0), *broken[:2]])
    assert (following.round, pending(following)) == (1, tuple(Train(one, 1) for one in names(3)))
    lost = play(state, [ClientLost("c2"), *broken[:2]])
    assert (lost.phase, pending(lost)) == (Phase.EVALUATING, (Evaluate("c2", 0),))
    reason = "nobody is left to evaluate round 0: c0: c0 broke; c1: c1 broke; c2: c2 broke"
    assert (play(state, broken).status, play(state, broken).reason) == (Status.FAILED, reason)


def test_a_failure_in_its_turn_hands_it_to_the_next() -> None:
    state, (a, b, c) = in_turns(quorum=2)
    state, commands = step(state, failed(a))
    assert commands == pending(state) == (Train(b, 0),)
    state = play(state, [Trained(b, 0), Trained(c, 0)])
    assert pending(state)[-1] == Aggregate(0, tuple(sorted((b, c))), last=c)


def test_a_failure_survives_a_restart_of_the_coordinator() -> None:
    state = play(begun(RunState(2, 3, quorum=2)), [failed("c1")])
    assert from_json(to_json(state)) == state
    assert pending(from_json(to_json(state))) == (Train("c0", 0), Train("c2", 0))


def test_a_resumed_run_forgets_who_failed() -> None:
    fresh = RunState(2, 3, quorum=2)
    state = play(begun(fresh), [failed("c1"), failed("c2"), ResumeRequested(fresh), ClientsAvailable(names(3))])
    assert replace(state, chosen=()) == replace(begun(fresh), chosen=())
    assert len(pending(state)) == 3
