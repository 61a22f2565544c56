"""Who trains in a round, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from .unit import seed_of


def chosen(seed: int, round_: int, clients: Sequence[str], participants: int, *, turns: bool) -> tuple[str, ...]:
    """The clients that train in a round: sorted, or, when they take turns, in the order of their turns.

    Each client draws a number from seed, round and its id; the `participants` smallest are chosen. So neither the order
    of `clients` nor what happened in earlier rounds has a part in it.
    """
    drawn = sorted(set(clients), key=lambda client: (seed_of("participants", seed, round_, client), client))
    training = sorted(drawn[:participants])
    return tuple(sorted(training, key=lambda client: seed_of("turn", seed, round_, client)) if turns else training)
