"""Who has which samples in a run: the clients' shares, and the public samples that no client has."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.partition import IntArray, Share, partition, set_aside
from ..core.unit import seed_of
from ..spec import RunSpec


@dataclass(frozen=True)
class Deal:
    """shares: one a client, in the order of the clients. public: ascending int64 indices into the train set."""

    shares: list[Share]
    public: IntArray


def deal(spec: RunSpec, train: IntArray, test: IntArray) -> Deal:
    """The division of a data set: equal in every process, and in every strategy with the same `data` and `run.seed`.

    First `data.public` of the train samples are set aside, then the rest is divided by `data.partition`. A strategy
    that pools has one client with all that the others would have together.

    Args:
        train, test: int64 [samples], the label of every sample of both splits (see `datasets.labels`).

    Raises:
        ImpossiblePartition: when the data cannot be divided so.
    """
    private, public = set_aside(len(train), part=spec.data.public, seed=seed_of("public", spec.run.seed))
    shares = partition(
        train[private],
        test,
        clients=spec.run_clients,
        # One client gets everything, however the samples would be divided among several.
        scheme="iid" if spec.strategy.traits.pooled else spec.data.partition,
        alpha=spec.data.alpha,
        shards_per_client=spec.data.shards_per_client,
        seed=spec.run.seed,
    )
    return Deal([Share(private[share.train], share.test) for share in shares], public)
