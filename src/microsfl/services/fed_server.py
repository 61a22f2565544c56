"""The fed server: takes client-side weights, makes one version of them a round, and hands it out. Keeps no state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cachetools import LRUCache
from torch import nn

from ..config import FedServerSettings
from ..core.client_side import exchanged
from ..core.norms import Bound
from ..core.server_optimizer import ServerOptimizer
from ..device import use_threads
from ..errors import InputError
from ..process import start_logging
from ..spec import RunSpec, check_id
from ..store.objects import open_store
from ..store.timed import Timed
from ..store.verbs import Store
from ..sync import keys
from ..sync.client_side import AverageRule, ClientSync
from ..sync.runs import create_run, load_run
from ..telemetry.exposition import Point
from ..trust.tokens import Audience
from ..wire.messages import Stored, Update
from ..zoo.parts import build_parts, client_side, load_front
from .reduces import Reduces, told
from .replica import Json, Replica, number_field, text_field
from .replica_endpoints import CLIENT_SIDE
from .replica_points import sync_points
from .standing_by import serve_replica
from .stopwatch import Stopwatch

ROLE = "fed-server"
RUNS_KEPT = 16


class FedServer:
    """Every request as a function. Not thread-safe: one compute thread calls it."""

    def __init__(self, settings: FedServerSettings, store: Store) -> None:
        self.settings = settings
        self.store = Timed(store)
        self.runs: LRUCache[str, ClientSync] = LRUCache(RUNS_KEPT)
        self.counts = {"updates": 0, "downloads": 0}
        self.reduces = Reduces()

    def prepare(self, call: Json) -> Json:
        """Create the run in the client area, with version 0."""
        spec = RunSpec.parse(call.get("spec") or {})
        begins = not self.store.exists(keys.commit(spec.run.name, keys.CLIENT, 0))
        sync = self._made(spec, begins=begins)
        create_run(self.store, spec)
        self.runs[spec.run.name] = sync
        if begins:
            sync.initialize()
        return self.status(spec.run.name)

    def upload(self, update: Update) -> Stored:
        """Store a client's weights; durable when this returns."""
        sync = self._run(update.run)
        sync.upload(update)
        self.counts["updates"] += 1
        return Stored(round=update.round)

    def aggregate(self, call: Json) -> Json:
        """Make a version of the updates of the clients that are named, by the run's rule, and commit it."""
        clients = call.get("clients")
        if not isinstance(clients, list) or not all(isinstance(client, str) for client in clients):
            raise InputError("'clients' must be a list of client ids; an empty one means all that have an update.")
        clients = [check_id(client, "client") for client in clients]
        last = None if call.get("last") is None else text_field(call, "last", "client")
        sync = self._run(text_field(call, "run"))
        self.reduces.begin()
        commit = sync.aggregate(number_field(call, "round"), clients, last)
        return {
            "version": commit.version,
            "clients": len(commit.contributions),
            "commit_sha256": commit.sha256,
            "outliers": told(sync.run, keys.CLIENT, sync.chain, commit),
        }

    def update(self, run: str, round_: int, client: str) -> bytes:
        """State of a client's optimizers after a round, as it uploaded it."""
        return self._run(run).optimizer(round_, client)

    def handed_on(self, run: str, round_: int, client: str) -> bytes:
        """The weights that a client uploaded in a round, for the one whose turn comes after it."""
        self.counts["downloads"] += 1
        return self._run(run).handed_on(round_, client)

    def weights(self, run: str, version: int | None) -> tuple[int, bytes]:
        """A version's weights file."""
        self.counts["downloads"] += 1
        return self._run(run).weights(version)

    def status(self, run: str) -> Json:
        """The newest version, the round that takes updates, and whether its closing has begun."""
        return self._run(run).chain.status()

    def info(self) -> Json:
        """Figures of this process since it started."""
        return {**self.counts, "commits": self.reduces.count}

    def points(self, stopwatch: Stopwatch) -> Iterator[Point]:
        """Its metrics besides those of every replica."""
        yield "microsfl_updates_total", {}, self.counts["updates"]
        yield "microsfl_downloads_total", {}, self.counts["downloads"]
        yield from sync_points("client", stopwatch, self.reduces)

    def _run(self, name: str) -> ClientSync:
        known = self.runs.get(name)
        if known is None:
            known = self.runs[name] = self._made(load_run(self.store, name))
        return known

    def _made(self, spec: RunSpec, *, begins: bool = False) -> ClientSync:
        parts = build_parts(spec, self.settings.allow_models)
        frozen = spec.strategy.front_update == "never"
        if begins and not frozen:  # later on, the weights that a run began with are in its version 0
            load_front(spec, parts.front, self.settings.front_weights)
        held = client_side(spec, parts)
        initial = exchanged(held, front_is_frozen=frozen)
        sync = ClientSync(self.store, spec.run.name, initial, rule_of(spec, held))
        sync.chain.on_commit = self.reduces.made(spec.run.name)
        return sync


def rule_of(spec: RunSpec, parts: Mapping[str, nn.Module]) -> AverageRule:
    """How the specification makes a version of the updates; `parts` are those that a client holds."""
    strategy = spec.strategy
    trained = (
        f"{part}.{name}"
        for part, module in parts.items()
        for name, _ in module.named_parameters(remove_duplicate=False)  # a tied weight has two names in an update
    )
    return AverageRule(
        average=strategy.average,
        trim=strategy.trim,
        optimizer=ServerOptimizer(**strategy.server_optimizer.model_dump()),
        trained=frozenset(trained),
        handed_on=strategy.traits.client_side == "handed-on",
        seed=spec.run.seed,
        bound=Bound(spec.limits.max_update_norm, spec.limits.on_excess == "clip"),
    )


def create_replica(settings: FedServerSettings, store: Store) -> Replica:
    """The fed server's table of functions."""
    server = FedServer(settings, store)
    stopwatch = Stopwatch(server.store, server.counts)
    return Replica(
        role=ROLE,
        messages={"/v1/updates": (Update, server.upload)},
        calls={"/v1/runs": server.prepare, "/v1/aggregate": server.aggregate},
        weights=server.weights,
        status=server.status,
        update=server.update,
        handed_on=server.handed_on,
        info=server.info,
        stopwatch=stopwatch,
        endpoints=CLIENT_SIDE,
        points=lambda: server.points(stopwatch),
    )


def main(settings: FedServerSettings) -> None:
    """Run a fed server until it is asked to end."""
    start_logging(ROLE, settings.log_level)
    use_threads(1)
    store = open_store(settings.store_url)
    store.probe()
    replica = create_replica(settings, store)
    replica.compute.submit(use_threads, 1)
    serve_replica(replica, settings, Audience.CLIENT_SIDE)
