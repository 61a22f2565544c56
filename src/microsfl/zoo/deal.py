"""Who has which samples in a run: the clients' shares, and the public samples that no client has.

Or each client has data of its own (`data.partition = "own"`), of which nobody else knows anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.partition import IntArray, Share, partition, set_aside
from ..core.unit import seed_of
from ..errors import InvalidSetting
from ..spec import RunSpec
from .datasets import Data, load_data, takes_client

OWN = "own"


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
        InvalidSetting: when it is not to be divided.
    """
    if spec.data.partition == OWN:
        raise InvalidSetting("data.partition = 'own' divides nothing; this takes a data set that the run divides.")
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


def everything(data: Data) -> Share:
    """All samples, as a share."""
    return Share(np.arange(len(data.train)), np.arange(len(data.test)))


def own_data(spec: RunSpec) -> list[Data]:
    """What each client of a run of `partition = "own"` has, where they are all on this machine.

    Raises:
        InvalidSetting: when the run's data set would be the same for each of several clients.
    """
    name, path, count = spec.data.dataset, spec.data.path, spec.run_clients
    if count > 1 and not takes_client(name):
        raise InvalidSetting(
            f"data.partition = 'own', but '{name}' is the same for each of the {count} clients. On one machine it must "
            "be a function of yours that takes the client's name, def load(client). Where each site brings its own "
            "data (`microsfl client --dataset`), say what it is like instead: model.input_shape and model.classes."
        )
    return [load_data(name, path, client) for client in client_ids(count)]


def check_own(data: Data, name: str, client: str, spec: RunSpec) -> None:
    """Raises InvalidSetting when a client's own data set `name` is not what the run's model is made for."""
    shape, classes = spec.model.input_shape, spec.model.classes
    what = f"'{name}' of client {client}"
    if data.input_shape != shape:
        raise InvalidSetting(
            f"{what} has samples of shape {list(data.input_shape)}, but the run's are {list(shape)} "
            "(model.input_shape). Bring the data into that shape, or correct the run's specification."
        )
    if isinstance(classes, int) and data.classes > classes:
        raise InvalidSetting(
            f"{what} has the label {data.classes - 1}, but the run's model has {classes} classes (model.classes), "
            f"0 to {classes - 1}."
        )


def client_ids(count: int) -> tuple[str, ...]:
    """client-00, client-01, …: in sorted order, which is the order in which a run numbers its clients."""
    digits = max(2, len(str(count - 1)))
    return tuple(f"client-{number:0{digits}}" for number in range(count))
