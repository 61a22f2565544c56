"""The fed server: takes client-side weights, averages them once a round, and hands them out. Keeps no state either."""

from __future__ import annotations

import torch
from cachetools import LRUCache

from ..config import FedServerSettings
from ..core.client_side import exchanged
from ..errors import InputError
from ..process import start_logging
from ..spec import RunSpec, check_id
from ..store.objects import open_store
from ..store.verbs import Store
from ..sync.client_side import ClientSync
from ..sync.runs import create_run, load_run
from ..wire.messages import Stored, Update
from ..zoo.parts import build_parts
from .replica import Json, Replica, number_field, serve_replica, text_field

ROLE = "fed-server"
RUNS_KEPT = 16


class FedServer:
    """Every request as a function. Not thread-safe: one compute thread calls it."""

    def __init__(self, settings: FedServerSettings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.runs: LRUCache[str, ClientSync] = LRUCache(RUNS_KEPT)
        self.counts = {"updates": 0, "downloads": 0, "commits": 0}

    def prepare(self, call: Json) -> Json:
        """Create the run in the client area, with version 0."""
        spec = RunSpec.parse(call.get("spec") or {})
        sync = self._open(spec)
        create_run(self.store, spec)
        sync.initialize()
        return self.status(spec.run.name)

    def upload(self, update: Update) -> Stored:
        """Store a client's weights; durable when this returns."""
        sync = self._run(update.run)
        sync.upload(update)
        self.counts["updates"] += 1
        return Stored(round=update.round)

    def aggregate(self, call: Json) -> Json:
        """Average the updates of the clients that are named, and commit."""
        clients = call.get("clients")
        if not isinstance(clients, list) or not all(isinstance(client, str) for client in clients):
            raise InputError("'clients' must be a list of client ids; an empty one means all that have an update.")
        sync = self._run(text_field(call, "run"))
        commit = sync.aggregate(number_field(call, "round"), [check_id(client, "client") for client in clients])
        self.counts["commits"] += 1
        return {"version": commit.version, "clients": len(commit.contributions)}

    def update(self, run: str, round_: int, client: str) -> bytes:
        """State of a client's optimizers after a round, as it uploaded it."""
        return self._run(run).optimizer(round_, client)

    def weights(self, run: str, version: int | None) -> tuple[int, bytes]:
        """A version's weights file."""
        self.counts["downloads"] += 1
        return self._run(run).weights(version)

    def status(self, run: str) -> Json:
        """The newest version, the round that takes updates, and whether its closing has begun."""
        return self._run(run).chain.status()

    def info(self) -> Json:
        """Figures of this process since it started."""
        return dict(self.counts)

    def _run(self, name: str) -> ClientSync:
        known = self.runs.get(name)
        return known if known is not None else self._open(load_run(self.store, name))

    def _open(self, spec: RunSpec) -> ClientSync:
        parts = build_parts(spec, self.settings.allow_models)
        frozen = spec.strategy.front_update == "never"
        sync = ClientSync(self.store, spec.run.name, exchanged(parts.front, parts.tail, front_is_frozen=frozen))
        self.runs[spec.run.name] = sync
        return sync


def create_replica(settings: FedServerSettings, store: Store) -> Replica:
    """The fed server's table of functions."""
    server = FedServer(settings, store)
    return Replica(
        role=ROLE,
        messages={"/v1/updates": (Update, server.upload)},
        calls={"/v1/runs": server.prepare, "/v1/aggregate": server.aggregate},
        weights=server.weights,
        status=server.status,
        update=server.update,
        info=server.info,
    )


def main(settings: FedServerSettings) -> None:
    """Run a fed server until it is asked to end."""
    start_logging(ROLE, settings.log_level)
    torch.set_num_threads(1)
    store = open_store(settings.store_url)
    store.probe()
    serve_replica(create_replica(settings, store), settings)
