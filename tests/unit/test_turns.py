"""Who trains in a round, and when: drawn by the seed, and by nothing else."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from microsfl.core.turns import chosen

CLIENTS = [f"client-{index:02}" for index in range(20)]
some = st.lists(st.sampled_from(CLIENTS), min_size=1, unique=True)
seeds, rounds = st.integers(0, 2**31 - 1), st.integers(0, 1000)


@given(some, seeds, rounds, st.integers(1, 25), st.booleans())
def test_as_many_as_asked_for_and_each_once(
    clients: list[str], seed: int, round_: int, participants: int, turns: bool
) -> None:
    drawn = chosen(seed, round_, clients, participants, turns=turns)
    assert len(drawn) == len(set(drawn)) == min(participants, len(clients))
    assert set(drawn) <= set(clients)


@given(some, seeds, rounds, st.integers(1, 20), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_the_clients_has_no_part_in_it(
    clients: list[str], seed: int, round_: int, participants: int, turns: bool, chance: random.Random
) -> None:
    other = list(clients)
    chance.shuffle(other)
    assert chosen(seed, round_, clients, participants, turns=turns) == chosen(
        seed, round_, other, participants, turns=turns
    )


@given(some, seeds, rounds, st.integers(1, 20))
def test_turns_change_the_order_alone(clients: list[str], seed: int, round_: int, participants: int) -> None:
    side_by_side = chosen(seed, round_, clients, participants, turns=False)
    assert side_by_side == tuple(sorted(chosen(seed, round_, clients, participants, turns=True)))


@given(some, seeds, rounds, st.integers(1, 19))
def test_whoever_takes_part_among_fewer_takes_part_among_more(
    clients: list[str], seed: int, round_: int, participants: int
) -> None:
    fewer = chosen(seed, round_, clients, participants, turns=False)
    assert set(fewer) <= set(chosen(seed, round_, clients, participants + 1, turns=False))


def test_over_the_rounds_everybody_is_drawn_and_everybody_is_first() -> None:
    drawn = [chosen(0, round_, CLIENTS, 5, turns=True) for round_ in range(400)]
    taking_part = Counter(client for one in drawn for client in one)
    first = Counter(one[0] for one in drawn)
    assert set(taking_part) == set(first) == set(CLIENTS)
    assert all(60 <= count <= 140 for count in taking_part.values())  # 100 are expected, with a deviation of 8.7


def test_another_seed_and_another_round_draw_others() -> None:
    assert len({chosen(seed, 0, CLIENTS, 5, turns=False) for seed in range(50)}) > 45
    assert len({chosen(0, round_, CLIENTS, 5, turns=False) for round_ in range(50)}) > 45


def test_the_draw_is_the_same_for_ever() -> None:
    """A run is resumed by another version; its rounds must have the clients that they had."""
    assert chosen(3, 7, CLIENTS[:5], 3, turns=False) == ("client-00", "client-01", "client-03")
    assert chosen(3, 7, CLIENTS[:5], 5, turns=True) == (
        "client-00", "client-04", "client-03", "client-01", "client-02",
    )  # fmt: skip
