"""The servers and the clients of one run as objects of this process, and what they leave in its memory."""

from __future__ import annotations

import json

from torch import nn

from ..client.choice import Choice
from ..client.trainer import Trainer
from ..client.transport import FedServer, SplitServers
from ..client.units import LocalData
from ..config import FedServerSettings, SplitServerSettings
from ..core.unit import UnitKey
from ..device import choose_device
from ..launch.rehearsal import Rehearsal
from ..services import fed_server, split_server
from ..services.replica import Json
from ..spec import RunSpec
from ..store.objects import ObjectStore, open_store
from ..sync import keys
from ..sync.commits import Chain, Commit
from ..wire.timing import Timing
from ..zoo.deal import client_ids
from ..zoo.parts import client_side
from .direct import Direct

# As `microsfl run` calls its processes.
NAMES = {split_server.ROLE: f"{split_server.ROLE}-0", fed_server.ROLE: fed_server.ROLE}


class Federation:
    """A split server and a fed server, as far as the strategy has work for them, and every client of the run.

    Args:
        spec: resolved. rehearsal: its model, data and shares.
    """

    def __init__(self, spec: RunSpec, rehearsal: Rehearsal) -> None:
        traits = spec.strategy.traits
        self.spec = spec
        self.body_store, self.client_store = open_store("memory://"), open_store("memory://")
        self.split, self.fed = Direct([]), Direct([])
        if traits.split:
            self.split.replicas.append(split_server.create_replica(_split_settings(spec), self.body_store))
        if traits.federated:
            self.fed.replicas.append(fed_server.create_replica(_fed_settings(spec), self.client_store))
        for replica in (*self.split.replicas, *self.fed.replicas):
            replica.stopwatch.server = NAMES[replica.role]
            replica.calls["/v1/runs"]({"spec": json.loads(spec.to_json())})
        modules = client_side(spec, rehearsal.parts)
        self.trainers = {
            client: self._trainer(number, client, modules, LocalData(data.train, data.test, share))
            for number, (client, data, share) in enumerate(
                zip(client_ids(spec.run_clients), rehearsal.data, rehearsal.shares, strict=True)
            )
        }

    def reduce(self, round_: int) -> tuple[Json, Timing]:
        """Have the split server close a round."""
        return self._call(self.split, "/v1/reduce", {"round": round_})

    def aggregate(self, values: Json) -> tuple[Json, Timing]:
        """Have the fed server close a round."""
        return self._call(self.fed, "/v1/aggregate", values)

    def _call(self, direct: Direct, path: str, values: Json) -> tuple[Json, Timing]:
        [replica] = direct.replicas
        return replica.call(None, replica.calls[path], {"run": self.spec.run.name, **values})

    def weights(self) -> tuple[bytes | None, bytes | None]:
        """The newest weights files of the body and of what clients exchange; None for what the run does not have."""
        run, traits = self.spec.run.name, self.spec.strategy.traits
        body = self.split.replicas[0].weights(run, None)[1] if traits.split else None
        return body, self.fed.replicas[0].weights(run, None)[1] if traits.federated else None

    def close(self) -> None:
        for replica in (*self.split.replicas, *self.fed.replicas):
            replica.compute.shutdown()
            replica.close()

    def _trainer(self, number: int, client: str, modules: dict[str, nn.Module], data: LocalData) -> Trainer:
        split, fed = (["0"] * len(direct.replicas) for direct in (self.split, self.fed))
        return Trainer(
            self.spec,
            client,
            modules,
            data,
            SplitServers(self.split, Choice("sticky", number), lambda: split),
            FedServer(self.fed, lambda: fed[0] if fed else None),
            choose_device(self.spec.servers.client_device),
        )


class Sweeper:
    """Forgets what nothing in a simulation reads again, so that its memory does not grow with the rounds.

    Stricter than `sync.retention`, which has to think of replicas that are late. Here no unit is under way while a
    commit is made, so that whatever a commit settles or replaces is done with. Of each client the newest update stays,
    as it has the state of its optimizers.
    """

    def __init__(self, federation: Federation) -> None:
        self.run = federation.spec.run.name
        self.commits: list[Commit] = []  # of the body, oldest first, without version 0
        self._body = _Area(federation.body_store, self.run, keys.BODY) if federation.split.replicas else None
        self._client = _Area(federation.client_store, self.run, keys.CLIENT) if federation.fed.replicas else None
        self._updates: dict[str, str] = {}

    def sweep(self) -> None:
        """Forget what the commits since the last time have settled or replaced."""
        if self._body:
            self._sweep_body(self._body)
        if self._client:
            self._sweep_client(self._client)

    def _sweep_body(self, area: _Area) -> None:
        for commit in area.advance():
            self.commits.append(commit)
            for client, unit in commit.settled:
                area.store.delete(keys.contribution(UnitKey(self.run, commit.round, client, unit)))

    def _sweep_client(self, area: _Area) -> None:
        for commit in area.advance():
            for one in commit.contributions:
                if one.client in self._updates:
                    area.store.delete(self._updates[one.client])
                self._updates[one.client] = keys.update(self.run, commit.round, one.client)


class _Area:
    """One area's commits as they come; the files of a version go when the next one does not name them too."""

    def __init__(self, store: ObjectStore, run: str, area: str) -> None:
        self.store = store
        self.chain = Chain(store, run, area)
        self.seen = self.chain.head()

    def advance(self) -> list[Commit]:
        """The commits since the last time, oldest first."""
        head = self.chain.head()
        new = [self.chain.get(number) for number in range(self.seen.version + 1, head.version + 1)]
        for commit in new:
            for key in _files(self.seen) - _files(commit):
                self.store.delete(key)
            self.seen = commit
        return new


def _files(commit: Commit) -> set[str]:
    return {file.key for file in (commit.weights, commit.optimizer) if file is not None}


def _split_settings(spec: RunSpec) -> SplitServerSettings:
    return SplitServerSettings(
        store_url="memory://",
        allow_models=(spec.model.name,),
        graph_cache_mb=spec.servers.graph_cache_mb,
        weights_cache_mb=spec.servers.weights_cache_mb,
        write_behind_mb=0,  # there is no other replica that activations could be handed over to
        device=spec.servers.device,
    )


def _fed_settings(spec: RunSpec) -> FedServerSettings:
    return FedServerSettings(store_url="memory://", allow_models=(spec.model.name,))
