"""A client's samples, and the units of work that it makes of them in a round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..core.partition import IntArray, Share, batches
from ..core.unit import UnitKey, batch_seed, seed_of
from ..spec import RunSpec
from ..zoo.datasets import Samples, take


@dataclass(frozen=True)
class LocalData:
    """A client's samples: indices into its data sets."""

    train: Samples
    test: Samples
    share: Share


@dataclass(frozen=True)
class Unit:
    """Consecutive batches of one size, computed in one request.

    x: [batches * samples, …]. y: int64 [batches * samples]. Seeds: one a batch.
    """

    key: UnitKey
    x: Tensor
    y: Tensor
    front_seeds: list[int]
    tail_seeds: list[int]

    @property
    def samples(self) -> int:
        """In all batches together."""
        return len(self.y)

    @property
    def batches(self) -> int:
        return len(self.front_seeds)


def units_of_round(spec: RunSpec, client: str, data: LocalData, round_: int) -> Iterator[Unit]:
    """The client's units of one round, in the order of training."""
    seed = spec.run.seed
    order = batches(
        len(data.share.train),
        batch_size=spec.data.batch_size,
        epochs=spec.strategy.local_epochs,
        seed=seed_of("order", seed, client, round_),
    )
    first = 0
    for group in group_batches(order, spec.strategy.unit if isinstance(spec.strategy.unit, int) else 1):
        key = UnitKey(spec.run.name, round_, client, first)
        yield Unit(
            key,
            *take(data.train, data.share.train[np.concatenate(group)]),
            [batch_seed("front", seed, key, i) for i in range(len(group))],
            [batch_seed("tail", seed, key, i) for i in range(len(group))],
        )
        first += len(group)


def group_batches(order: list[IntArray], size: int) -> Iterator[list[IntArray]]:
    """Consecutive batches in groups of at most `size`, each of one batch length."""
    group: list[IntArray] = []
    for indices in order:
        if group and (len(group) == size or len(group[0]) != len(indices)):
            yield group
            group = []
        group.append(indices)
    if group:
        yield group
