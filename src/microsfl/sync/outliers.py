"""Clients whose contributions to a round are outliers, as the commits of the round tell it."""

from __future__ import annotations

from itertools import islice, takewhile

from ..core.outliers import Outlier, outliers
from .commits import Chain, Commit

# Of a round of many commits the last ones are looked at.
COMMITS_READ = 64


def of_round(chain: Chain, closing: Commit) -> list[Outlier]:
    """The outliers of the round that a commit closed: by the mean of a client's norms, weighted by its batches.

    Raises:
        VersionNotFound, StoreCorrupt.
    """
    weights: dict[str, float] = {}
    sums: dict[str, float] = {}
    for commit in islice(takewhile(lambda one: one.round == closing.round, chain.back(closing)), COMMITS_READ):
        for one in commit.contributions:
            if one.norm:
                weights[one.client] = weights.get(one.client, 0.0) + one.batches
                sums[one.client] = sums.get(one.client, 0.0) + one.batches * one.norm
    return outliers({client: total / weights[client] for client, total in sums.items()})
