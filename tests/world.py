"""A whole federation in one process: real replicas, real message bytes, a real store, and no sockets between them.

What simulations use, with several replicas and with faults. Tests that are about processes or sockets use real ones
instead (tests/service, tests/integration).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from microsfl.client.choice import Choice
from microsfl.client.trainer import Task, Trainer
from microsfl.client.transport import FedServer, SplitServers
from microsfl.client.units import LocalData
from microsfl.config import FedServerSettings, SplitServerSettings
from microsfl.core.partition import Share, batches
from microsfl.core.turns import chosen
from microsfl.core.unit import UnitKey, batch_seed, seed_of
from microsfl.services import fed_server, split_server
from microsfl.services.replica import Replica
from microsfl.simulate.direct import Answer, Direct
from microsfl.spec import RunSpec
from microsfl.store.objects import ObjectStore, open_store
from microsfl.sync import keys
from microsfl.sync.commits import Chain, Commit
from microsfl.wire.tensors import decode
from microsfl.zoo.datasets import take
from microsfl.zoo.parts import build_parts, client_side

MODELS = "tests.toys:"
ALLOWED = tuple(f"{MODELS}{name}" for name in ("plain", "dropout", "batchnorm", "masked", "sixteen"))


def spec_of(**tables: dict[str, Any]) -> RunSpec:
    """A resolved specification for the toy data below."""
    values: dict[str, Any] = {
        "run": {"name": "toy", "rounds": 2},
        "data": {"clients": 1, "batch_size": 8},
        "model": {"name": f"{MODELS}plain"},
    }
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **table}
    return RunSpec.parse(values).resolved(input_shape=(6,), classes=3)


def toy_data(samples: int = 24, seed: int = 0) -> LocalData:
    """Six features, three classes, drawn once."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 6, generator=random)
    y = (x[:, :3] + 0.1 * torch.randn(samples, 3, generator=random)).argmax(1)
    everything = torch.arange(samples).numpy()
    data = TensorDataset(x, y)
    return LocalData(data, data, Share(everything, everything))


class Recorded(Direct):
    """Keeps a list of its requests; `faults` may repeat or break them."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        super().__init__(replicas)
        self.requests: list[tuple[str, str]] = []

    def request(
        self, method: str, servers: Callable[[], Sequence[str]], path: str, body: bytes | None = None, *_: Any
    ) -> Answer:
        self.requests.append((method, path))
        return super().request(method, servers, path, body)


class World:
    """Split servers on one body area, a fed server on its client area, and clients that train rounds on them."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        replicas: int = 1,
        caches: bool = True,
        spread: str = "sticky",
        folder: Path | None = None,
    ) -> None:
        self.spec = spec
        self.spread = spread
        self.body_store = self._store(folder, "body")
        self.client_store = self._store(folder, "client")
        self.caches = caches
        traits = spec.strategy.traits
        self.split = Recorded([self.new_replica() for _ in range(replicas if traits.split else 0)])
        fed_settings = FedServerSettings(store_url="memory://", allow_models=ALLOWED)
        self.fed = Recorded([fed_server.create_replica(fed_settings, self.client_store)] * traits.federated)
        self.data: dict[str, LocalData] = {}
        for replica in (*self.split.replicas, *self.fed.replicas):
            replica.calls["/v1/runs"]({"spec": json.loads(spec.to_json())})
        self.trainers: dict[str, Trainer] = {}
        self.chain = Chain(self.body_store, spec.run.name, keys.BODY)
        self.client_chain = Chain(self.client_store, spec.run.name, keys.CLIENT)

    @staticmethod
    def _store(folder: Path | None, area: str) -> ObjectStore:
        return open_store("memory://" if folder is None else f"file://{folder}/{area}")

    def new_replica(self) -> Replica:
        """A split server that has just started: it knows nothing but its settings and the store."""
        megabytes = 64 if self.caches else 0
        settings = SplitServerSettings(
            store_url="memory://", allow_models=ALLOWED, graph_cache_mb=megabytes, weights_cache_mb=megabytes
        )
        return split_server.create_replica(settings, self.body_store)

    def new_fed_server(self) -> None:
        """A fed server that has just started takes the place of the one before."""
        settings = FedServerSettings(store_url="memory://", allow_models=ALLOWED)
        self.fed.replicas[0] = fed_server.create_replica(settings, self.client_store)

    def join(self, client: str, data: LocalData) -> Trainer:
        """The client with its data; joining again is a restart, which remembers nothing."""
        self.data[client] = data
        parts = build_parts(self.spec, ALLOWED)
        addresses = [str(number) for number in range(len(self.split.replicas))]
        split = SplitServers(self.split, Choice(self.spread, sorted(self.data).index(client)), lambda: addresses)
        fed = FedServer(self.fed, lambda: "0")
        self.trainers[client] = Trainer(
            self.spec, client, client_side(self.spec, parts), data, split, fed, torch.device("cpu")
        )
        return self.trainers[client]

    def task(self, client: str, round_: int, kind: str = "train", after: str | None = None) -> Task:
        traits = self.spec.strategy.traits
        body = self.chain.head().version if traits.split else 0
        client_side = self.client_chain.head().version if traits.federated else 0
        return Task(kind, self.spec.run.name, round_, client, 0, body, client_side, after)

    def chosen(self, number: int) -> tuple[str, ...]:
        """Who trains in a round, in the order of their turns."""
        everybody, share = sorted(self.trainers), self.spec.run.participants
        count = len(everybody) if share == "all" else share
        return chosen(self.spec.run.seed, number, everybody, count, turns=self.spec.strategy.traits.turns)

    def round(self, number: int) -> None:
        """Those who are chosen train, in their order, then the round is closed on both sides."""
        traits, training = self.spec.strategy.traits, self.chosen(number)
        before: str | None = None
        for client in training:
            self.trainers[client].train(
                self.task(client, number, after=before if traits.client_side == "handed-on" else None)
            )
            before = client
        self.close(number, training)

    def close(self, number: int, trained: Sequence[str] | None = None) -> None:
        """End the round with those who trained, by default those who were chosen; the last of them comes last."""
        run, traits = self.spec.run.name, self.spec.strategy.traits
        trained = trained or self.chosen(number)
        if traits.split:
            self.split.replicas[0].calls["/v1/reduce"]({"run": run, "round": number})
        if traits.federated:
            self.fed.replicas[0].calls["/v1/aggregate"](
                {"run": run, "round": number, "clients": sorted(trained), "last": trained[-1]}
            )

    def run(self) -> None:
        for number in range(self.spec.run.rounds):
            self.round(number)

    def commits(self) -> list[Commit]:
        """All commits of the body, oldest first, read from the store."""
        return list(self.chain.back(self.chain.head()))[::-1]

    def body_hash(self) -> str:
        return self.chain.head().weights.sha256

    def client_hash(self) -> str:
        return self.client_chain.head().weights.sha256

    def weights(self) -> dict[str, torch.Tensor]:
        """body.<…>, front.<…> and tail.<…> as committed."""
        split = self.spec.strategy.traits.split
        body = decode(self.chain.read(self.chain.head().weights)).tensors if split else {}
        client = decode(self.client_chain.read(self.client_chain.head().weights)).tensors
        return {**{f"body.{name}": tensor for name, tensor in body.items()}, **client}


def train_plainly(spec: RunSpec, client: str, data: LocalData) -> dict[str, torch.Tensor]:
    """What the same training is in ordinary PyTorch, in one process: the reference that law 1 speaks of."""
    parts = copy.deepcopy(build_parts(spec, ALLOWED))
    strategy, seed = spec.strategy, spec.run.seed
    optimizers = [
        getattr(torch.optim, rule.name)(parameters, **rule.options)
        for rule, parameters in (
            (strategy.client_optimizer, [*parts.front.parameters(), *parts.tail.parameters()]),
            (strategy.body_optimizer, [*parts.body.parameters()]),
        )
        if parameters
    ]
    for round_ in range(spec.run.rounds):
        order = batches(
            len(data.share.train),
            batch_size=spec.data.batch_size,
            epochs=strategy.local_epochs,
            seed=seed_of("order", seed, client, round_),
        )
        for number, indices in enumerate(order):
            x, y = take(data.train, data.share.train[indices])
            key = UnitKey(spec.run.name, round_, client, number)
            value: Any = (x,)
            for name, part in (("front", parts.front), ("body", parts.body), ("tail", parts.tail)):
                part.train()
                torch.manual_seed(batch_seed(name, seed, key, 0))
                value = part(*value)
                value = value if isinstance(value, tuple) else (value,)
            torch.nn.functional.cross_entropy(value[0], y).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return {
        f"{name}.{key}": tensor.detach()
        for name, part in (("front", parts.front), ("body", parts.body), ("tail", parts.tail))
        for key, tensor in part.state_dict().items()
    }
