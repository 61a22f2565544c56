"""Dividing a data set among clients, and the order of one client's samples.

Everything here is a function of its arguments: equal labels and an equal seed give equal indices in every process
that runs the same numpy (a release of numpy may change what a generator draws).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import ImpossiblePartition, InvalidSetting, did_you_mean

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MAX_DRAWS = 100

# Gamma draws overflow far above this; from here on the proportions are equal to six digits anyway.
_LARGEST_ALPHA = 1e12


@dataclass(frozen=True)
class Share:
    """One client's samples: ascending int64 indices into the train set [n] and the test set [m]."""

    train: IntArray
    test: IntArray


@dataclass(frozen=True)
class _Deal:
    """What a scheme divides: labels int64 [samples] of both splits, and how."""

    train: IntArray
    test: IntArray
    clients: int
    alpha: float
    shards_per_client: int
    rng: np.random.Generator


def partition(
    train_labels: IntArray,
    test_labels: IntArray,
    *,
    clients: int,
    scheme: str,
    alpha: float,
    shards_per_client: int,
    seed: int,
) -> list[Share]:
    """Give every train sample and every test sample to exactly one client.

    Args:
        train_labels: int64 [samples], the class of each train sample; test_labels likewise.
        clients: how many shares; each gets at least one train sample, its test share may be empty.
        scheme: `iid`: even sizes at random. `dirichlet-label`: each class is divided in proportions drawn from
            Dirichlet(alpha), the same for train and test (Li et al. 2021, "Federated Learning on Non-IID Data
            Silos", arXiv:2102.02079; after Hsu, Qi and Brown 2019, arXiv:1909.06335, who draw the classes of a
            client rather than the clients of a class). `dirichlet-size`: sizes are drawn so, labels are not
            looked at. `shards`: label-sorted shards (McMahan et al. 2017, arXiv:1602.05629); each class of the
            test set is divided as that class of the train set came out.
        alpha: concentration of the Dirichlet schemes; smaller is more skewed.
        shards_per_client: for `shards` only.
        seed: not negative.

    Raises:
        ImpossiblePartition: for an unknown scheme, values that no division satisfies, or when some client is left
            without a train sample in each of `MAX_DRAWS` draws.
    """
    if scheme not in _SCHEMES:
        raise ImpossiblePartition(f"data.partition: '{scheme}' is unknown.{did_you_mean(scheme, _SCHEMES)}")
    if clients < 1:
        raise ImpossiblePartition(f"data.clients = {clients}: at least one client must take part.")
    if clients > len(train_labels):
        raise ImpossiblePartition(
            f"data.clients = {clients} is more than the {len(train_labels)} train samples; each client needs one."
        )
    deal = _Deal(train_labels, test_labels, clients, alpha, shards_per_client, _generator(seed))
    train_owner, test_owner = _SCHEMES[scheme](deal)
    return [Share(np.flatnonzero(train_owner == one), np.flatnonzero(test_owner == one)) for one in range(clients)]


def set_aside(samples: int, *, part: float, seed: int) -> tuple[IntArray, IntArray]:
    """(indices that stay, indices that are set aside): 0 … samples - 1 drawn at random in two, both ascending int64.

    Args:
        part: in [0, 1), of the samples that are set aside, rounded to the nearest number; at least one, unless it is 0.
    """
    count = max(1, round(part * samples)) if part else 0
    mixed = _generator(seed).permutation(samples)
    return np.sort(mixed[count:]), np.sort(mixed[:count])


def label_counts(labels: IntArray, shares: Sequence[Share], classes: int) -> IntArray:
    """Train samples of each class that each client has, int64 [clients, classes].

    Args:
        labels: int64 [samples] in 0 … classes - 1, of the train set that the shares index.
    """
    rows = [np.bincount(labels[share.train], minlength=classes) for share in shares]
    return np.array(rows, dtype=np.int64).reshape(len(shares), classes)


def batches(samples: int, *, batch_size: int, epochs: int, seed: int) -> list[IntArray]:
    """The batches of one client in one round: positions 0 … samples - 1, int64, in the order of training.

    Each epoch is a permutation of its own, cut in consecutive batches; the last may be smaller. A leftover of
    exactly one sample joins the batch before it: BatchNorm cannot train on a single value per channel.

    Raises:
        InvalidSetting: when batch_size or epochs is below one.
    """
    if min(batch_size, epochs) < 1:
        raise InvalidSetting(f"batch_size = {batch_size} and epochs = {epochs} must both be at least 1.")
    rng = _generator(seed)
    starts = list(range(0, samples, batch_size))
    if batch_size > 1 and len(starts) > 1 and samples - starts[-1] == 1:
        starts.pop()
    return [part for _ in range(epochs) for part in np.split(rng.permutation(samples), starts[1:]) if part.size]


def _generator(seed: int) -> np.random.Generator:
    # PCG64 by name, because numpy's default_rng is free to change its choice of generator.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


def _iid(deal: _Deal) -> tuple[IntArray, IntArray]:
    return (
        deal.rng.permutation(np.arange(deal.train.size) % deal.clients),
        deal.rng.permutation(np.arange(deal.test.size) % deal.clients),
    )


def _dirichlet_label(deal: _Deal) -> tuple[IntArray, IntArray]:
    if not (math.isfinite(deal.alpha) and deal.alpha > 0):
        raise ImpossiblePartition(f"data.alpha = {deal.alpha} must be a finite number above 0.")
    kinds = np.union1d(deal.train, deal.test)
    proportions, train_owner = _drawn(deal, kinds)
    return train_owner, _owners(deal.test, kinds, proportions, deal.rng)


def _dirichlet_size(deal: _Deal) -> tuple[IntArray, IntArray]:
    """The same division of one class that holds every sample."""
    return _dirichlet_label(replace(deal, train=np.zeros_like(deal.train), test=np.zeros_like(deal.test)))


def _shards(deal: _Deal) -> tuple[IntArray, IntArray]:
    shards = deal.clients * deal.shards_per_client
    if not 1 <= shards <= deal.train.size:
        raise ImpossiblePartition(
            f"data.shards_per_client = {deal.shards_per_client} with {deal.clients} clients makes {shards} shards "
            f"of {deal.train.size} train samples; there must be at least one shard, and a sample in each."
        )
    order = np.argsort(deal.train, kind="stable")
    shard_owner = deal.rng.permutation(np.arange(shards) % deal.clients)
    train_owner = np.empty(deal.train.size, dtype=np.int64)
    train_owner[order] = shard_owner[np.arange(deal.train.size) * shards // deal.train.size]
    kinds = np.unique(deal.test)
    return train_owner, _owners(deal.test, kinds, _proportions_found(deal, kinds, train_owner), deal.rng)


_SCHEMES: dict[str, Callable[[_Deal], tuple[IntArray, IntArray]]] = {
    "iid": _iid,
    "dirichlet-label": _dirichlet_label,
    "dirichlet-size": _dirichlet_size,
    "shards": _shards,
}


def _drawn(deal: _Deal, kinds: IntArray) -> tuple[FloatArray, IntArray]:
    """Proportions [classes, clients] ~ Dirichlet(alpha), and the owners [samples] of the train set dealt in them.

    Drawn again while some client is left without a train sample.
    """
    concentration = np.full(deal.clients, min(deal.alpha, _LARGEST_ALPHA))
    for _ in range(MAX_DRAWS):
        proportions = deal.rng.dirichlet(concentration, size=kinds.size)
        train_owner = _owners(deal.train, kinds, proportions, deal.rng)
        dealt = np.bincount(train_owner, minlength=deal.clients)
        if dealt.all():
            return proportions, train_owner
    empty = ", ".join(str(client) for client in np.flatnonzero(dealt == 0)[:8])
    raise ImpossiblePartition(
        f"data.alpha = {deal.alpha} with {deal.clients} clients: in each of {MAX_DRAWS} draws some client is left "
        f"without a train sample (in the last one, client {empty}). Use a larger alpha, fewer clients or another seed."
    )


def _proportions_found(deal: _Deal, kinds: IntArray, train_owner: IntArray) -> FloatArray:
    """The part of each class's train samples that each client has, [classes, clients]."""
    found = [np.bincount(train_owner[deal.train == kind], minlength=deal.clients) for kind in kinds]
    counts = np.array(found, dtype=np.float64).reshape(kinds.size, deal.clients)
    # A class that the train set lacks has no proportions to follow: every client counts alike.
    counts[counts.sum(axis=1) == 0] = 1.0
    proportions: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return proportions


def _owners(labels: IntArray, kinds: IntArray, proportions: FloatArray, rng: np.random.Generator) -> IntArray:
    """The client of each sample, int64 [samples], each class dealt at random in its row of proportions."""
    owners = np.empty(labels.size, dtype=np.int64)
    for kind, row in zip(kinds, proportions, strict=True):
        where = rng.permutation(np.flatnonzero(labels == kind))
        # Clients in an order of this class's own: a tie in rounding must not favour the same one every time.
        clients = rng.permutation(row.size)
        owners[where] = np.repeat(clients, _counts(where.size, row[clients]))
    return owners


def _counts(samples: int, proportions: FloatArray) -> IntArray:
    """Whole numbers [clients] nearest to `samples * proportions` that add up to `samples` (largest remainder)."""
    exact = samples * proportions
    counts = np.floor(exact).astype(np.int64)
    # A stable sort, so that ties fall the same way on every machine.
    first = np.argsort(counts - exact, kind="stable")[: samples - int(counts.sum())]
    counts[first] += 1
    return counts
