"""The split server: computes the body for whoever asks, and keeps nothing that the store does not have.

Functions from message to message above; `main` makes a process of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from ..config import MB, SplitServerSettings
from ..core import step as core
from ..core.codec import make_optimizer
from ..core.formats import compressed, expanded
from ..core.randomness import generator
from ..core.unit import batch_seed
from ..device import choose_device, use_threads, warm_up
from ..errors import ActivationsMissing, InputError, TensorMismatch
from ..process import start_logging
from ..spec import RunSpec
from ..store.objects import open_store
from ..store.timed import Timed
from ..store.verbs import Store
from ..sync import hand_over, keys
from ..sync.body import BodySync, StateKey
from ..sync.copies import BodyCopies
from ..sync.history import commits_after
from ..sync.runs import create_run, load_run
from ..telemetry.opening import open_traces
from ..telemetry.traces import Traces
from ..trust.tokens import Audience
from ..wire.messages import Activations, Backward, Forward, Gradients, Outputs, Predict, Step, Tensors, UnitMessage
from ..zoo.parts import build_parts
from .plausible import Plausible
from .reduces import Reduces, told
from .replica import Json, Replica, number_field, text_field
from .split_caches import Graphs, Held, Versions, WriteBehind
from .split_points import points
from .split_rule import rule_of
from .standing_by import serve_replica
from .stopwatch import Stopwatch
from .tracing import Tracing, part

ROLE = "split-server"
RUNS_KEPT = 16
SHAPES_KEPT = 256


@dataclass
class Run:
    """What a replica keeps of a run: its specification and its body's sync. All of it can be read again."""

    spec: RunSpec
    sync: BodySync
    plausible: Plausible
    graph_sizes: LRUCache[tuple[Any, ...], int]


class SplitServer:
    """Every request of the data plane as a function. Not thread-safe: one compute thread calls it."""

    def __init__(self, settings: SplitServerSettings, store: Store, traces: Traces | None = None) -> None:
        self.settings = settings
        self.store = Timed(store)  # where this thread waits for it; the write-behind has a thread of its own
        self.device = choose_device(settings.device)
        self.runs: LRUCache[str, Run] = LRUCache(RUNS_KEPT)
        self.graphs = Graphs(settings.graph_cache_mb * MB)
        self.versions = Versions(settings.weights_cache_mb * MB, self.graphs.drop)
        self.writer = WriteBehind(store, int(settings.write_behind_mb * MB))
        self.counts = {"units": 0, "graph_hits": 0, "recomputed": 0, "computed_again": 0, "contributions": 0}
        self._largest: dict[str, int | None] = {}
        self.reduces = Reduces(traces)
        self.tracing = None if traces is None else Tracing(traces)

    def prepare(self, call: Json) -> Json:
        """Create the run in the body area, with version 0."""
        spec = RunSpec.parse(call.get("spec") or {})
        run = self._made(spec)
        create_run(self.store, spec)
        known = self.runs.get(spec.run.name)
        if known is not None and known.spec.decisive != spec.decisive:  # the store may be a new one
            self.versions.drop_run(spec.run.name)
        self.runs[spec.run.name] = run
        run.sync.initialize()
        return self.status(spec.run.name)

    def forward(self, request: Forward) -> Outputs:
        """Activations to outputs; keeps the graph and hands the activations to the store."""
        run = self._unit_of(request)
        version = self._version_for(run, request)
        state, forward = self._forward(run, request, version, request.activations, request.needs_grad)
        self._hold(run, request, version, state, forward)
        left = Activations(**_unit(request), needs_grad=request.needs_grad, activations=request.activations)
        self.writer.put(left, hold=request.sticky)
        outputs = compressed(forward.answer(), run.spec.wire.activations)
        return Outputs(version=version, differentiable=tuple(forward.differentiable()), outputs=outputs)

    def backward(self, request: Backward) -> Gradients:
        """Output gradients to the cut-layer gradient; the contribution is stored before this returns."""
        run = self._unit_of(request)
        arrived = expanded(request.gradients, run.spec.wire.gradients, self.device)
        held = self.graphs.pop(request.key, None)
        if held is not None and held.fits(request):
            self.counts["graph_hits"] += 1
            forward = held.forward
        else:
            self.counts["recomputed"] += 1
            forward = self._again(run, request)
            self.counts["computed_again"] += 1
        gradients = core.body_backward(forward, arrived)
        answer = self._contribute(run, request, request.version, forward, gradients)
        self.writer.forget(request.key)
        return answer

    def step(self, request: Step) -> Gradients:
        """Vanilla cut: forward, loss, backward and contribution in one."""
        run = self._unit_of(request)
        version = self._version_for(run, request)
        if request.labels.keys() != {"0"}:
            raise TensorMismatch("A Step needs labels '0'.")
        _, forward = self._forward(run, request, version, request.activations, request.needs_grad)
        labels = request.labels["0"].to(self.device)
        gradients, losses = core.body_step(forward, labels, request.batches)
        answer = self._contribute(run, request, version, forward, gradients)
        return answer.model_copy(update={"losses": {"0": losses}})

    def predict(self, request: Predict) -> Outputs:
        """Evaluation forward; leaves no trace."""
        run = self._run(request.run)
        version, format_ = run.sync.pick(request.version, request.at_least), run.spec.wire.activations
        activations = expanded(request.activations, format_, self.device)
        run.plausible.check_activations(activations)
        outputs = core.body_predict(run.sync.state(version).body, activations)
        return Outputs(version=version, outputs=compressed(outputs, format_))

    def reduce(self, call: Json) -> Json:
        """Close a round: commit what waits in it, of which other replicas may add up parts."""
        run = self._run(text_field(call, "run"))
        self.reduces.begin()
        commit = run.sync.close(number_field(call, "round"), _part({"parts": 1, **call, "part": 0})[1])
        return {
            "version": commit.version,
            "round": commit.round,
            "contributions": len(commit.contributions),
            "left_out": len(commit.left_out),
            "batches": sum(one.batches for one in commit.contributions),
            "commit_sha256": commit.sha256,
            "outliers": told(run.spec.run.name, keys.BODY, run.sync.chain, commit),
        }

    def add_up(self, call: Json) -> Json:
        """Add up a part of what waits in a round that another replica closes."""
        part, parts = _part(call)
        sums = self._run(text_field(call, "run")).sync.add_up(number_field(call, "round"), part, parts)
        return {"sums": sums}

    def weights(self, run: str, version: int | None) -> tuple[int, bytes]:
        """A version's weights file."""
        chain = self._run(run).sync.chain
        commit = chain.head() if version is None else chain.get(version)
        return commit.version, chain.read(commit.weights)

    def status(self, run: str) -> Json:
        """The newest version, the round that takes contributions, and whether its closing has begun."""
        return self._run(run).sync.chain.status()

    def is_managed(self, run: str) -> bool:
        """Whether the coordinator directs the run."""
        return self._run(run).spec.run.managed

    def info(self) -> Json:
        """Figures of this process since it started."""
        return {
            **self.counts,
            "commits": self.reduces.count,
            "graph_cache_bytes": int(self.graphs.currsize),
            "weights_cache_bytes": int(self.versions.currsize),
        }

    def close(self) -> None:
        """Hand over what waits for the store and for whoever follows units."""
        self.writer.close()
        if self.tracing is not None:
            self.tracing.traces.close()

    def largest(self, run: str) -> int | None:
        """Bytes of a message of a run that is known here."""
        return self._largest.get(run)

    def _unit_of(self, request: UnitMessage) -> Run:
        """The run of a unit that it can have, in a round that is open."""
        run = self._run(request.run)
        run.sync.chain.check_round(request.round)
        run.plausible.check_unit(request)
        return run

    def _run(self, name: str) -> Run:
        known = self.runs.get(name)
        if known is None:
            known = self.runs[name] = self._made(load_run(self.store, name))
        return known

    def _made(self, spec: RunSpec) -> Run:
        rule = rule_of(spec)
        parts = build_parts(spec, self.settings.allow_models)
        plausible, body = Plausible.of(spec, parts), parts.body.to(self.device)
        optimizer = rule.step.optimizer
        if any(True for _ in body.parameters()):  # wrong options are told now, not at the first commit
            make_optimizer(optimizer.name, body.parameters(), optimizer.options)
        kind = BodyCopies if spec.strategy.traits.body == "copies" else BodySync
        sync = kind(self.store, spec.run.name, body, rule, self.versions)
        self._largest = {**dict(list(self._largest.items())[-RUNS_KEPT:]), spec.run.name: plausible.largest_bytes}
        sync.chain.on_commit = self.reduces.made(spec.run.name)
        return Run(spec, sync, plausible, LRUCache(SHAPES_KEPT))

    def _version_for(self, run: Run, request: Forward | Step) -> int:
        self.reduces.begin()  # with turns, what waits is committed first
        return run.sync.version_for(request.key, request.version, request.at_least)

    def _forward(
        self, run: Run, unit: UnitMessage, version: int, activations: Tensors, needs_grad: Sequence[str]
    ) -> tuple[StateKey, core.Forward]:
        arrived = expanded(activations, run.spec.wire.activations, self.device)
        run.plausible.check_activations(arrived, unit.batches)
        unknown = set(needs_grad) - arrived.keys()
        if unknown or not arrived:
            raise TensorMismatch(f"needs_grad names {sorted(unknown)}; the activations are {sorted(arrived)}.")
        key, state = run.sync.state_for(unit.key, version)
        seeds = _seeds(run, unit)
        self.counts["units"] += 1
        return key, core.body_forward(state.body, arrived, needs_grad=needs_grad, seeds=seeds)

    def _again(self, run: Run, request: Backward) -> core.Forward:
        """The forward of the unit once more, from activations that came along or that the store has."""
        activations, needs_grad = request.activations, request.needs_grad
        if not activations:
            stored = hand_over.find(self.store, request.key)
            if stored is None:
                raise ActivationsMissing(f"The activations of {request.key} are not here any more; send them again.")
            if stored.batches != request.batches:
                raise TensorMismatch(
                    f"The unit came with {stored.batches} batches and goes back with {request.batches}."
                )
            activations, needs_grad = stored.activations, stored.needs_grad
        version = run.sync.pick(request.version, 0)
        return self._forward(run, request, version, activations, needs_grad)[1]

    def _hold(self, run: Run, request: Forward, version: int, state: StateKey, forward: core.Forward) -> None:
        """Keep the graph while there is room and the weights that it was computed with are kept too."""
        if not self.graphs.maxsize or state not in self.versions:
            return
        shape = (request.batches, request.needs_grad, *((n, t.shape, t.dtype) for n, t in request.activations.items()))
        if shape not in run.graph_sizes:
            seeds = _seeds(run, request)
            run.graph_sizes[shape] = core.graph_bytes(forward.body, forward.inputs, request.needs_grad, seeds)
        size = run.graph_sizes[shape]
        if size <= self.graphs.maxsize:
            self.graphs[request.key] = Held(state, version, request.batches, forward, size)

    def _contribute(
        self, run: Run, unit: UnitMessage, version: int, forward: core.Forward, gradients: core.Gradients
    ) -> Gradients:
        samples = next(iter(forward.inputs.values())).shape[0]
        with part(self.tracing, "contribution"):
            self.counts["contributions"] += run.sync.contribute(unit, version, samples, gradients, forward.buffers)
        self.reduces.begin()
        run.sync.commit_if_due(unit.key, unit.batches)
        newest = run.sync.chain.known().version
        return Gradients(version=version, newest=newest, gradients=_compressed_gradient(run, unit, gradients.inputs))


def create_replica(settings: SplitServerSettings, store: Store, traces: Traces | None = None) -> Replica:
    """The split server's table of functions."""
    server = SplitServer(settings, store, traces)
    stopwatch = Stopwatch(server.store, server.counts)
    return Replica(
        role=ROLE,
        messages={
            "/v1/forward": (Forward, server.forward),
            "/v1/backward": (Backward, server.backward),
            "/v1/step": (Step, server.step),
            "/v1/predict": (Predict, server.predict),
        },
        calls={"/v1/runs": server.prepare, "/v1/reduce": server.reduce, "/v1/partials": server.add_up},
        weights=server.weights,
        status=server.status,
        info=server.info,
        commits=lambda run, after: commits_after(store, run, keys.BODY, after),
        stopwatch=stopwatch,
        close=server.close,
        points=lambda: points(server, stopwatch),
        tracing=server.tracing,
        is_managed=server.is_managed,
        largest=server.largest,
    )


def main(settings: SplitServerSettings) -> None:
    """Run a split server until it is asked to end."""
    start_logging(ROLE, settings.log_level)
    use_threads(settings.threads)
    warm_up()
    traces = open_traces(settings.otel_endpoint, settings.otel_ratio, ROLE, settings.id)
    store = open_store(settings.store_url)
    store.probe()
    replica = create_replica(settings, store, traces)
    replica.compute.submit(use_threads, settings.threads)
    serve_replica(replica, settings, Audience.BODY)


def _unit(message: UnitMessage) -> dict[str, Any]:
    return {name: getattr(message, name) for name in UnitMessage.model_fields}


def _part(call: Json) -> tuple[int, int]:
    """Which part of how many. Raises InputError."""
    part, parts = number_field(call, "part"), number_field(call, "parts")
    if part >= parts:
        raise InputError(f"There is no part {part} of {parts}; the first is 0.")
    return part, parts


def _seeds(run: Run, unit: UnitMessage) -> list[int]:
    return [batch_seed("body", run.spec.run.seed, unit.key, batch) for batch in range(unit.batches)]


def _compressed_gradient(run: Run, unit: UnitMessage, gradient: Tensors) -> Tensors:
    """The cut-layer gradient as it travels.

    What rounding takes from it cannot be remembered here, where nothing is. So int8 is rounded at random, right in the
    mean, by the unit's key: a replay gives the same (docs/decisions/0010-wire-formats.md).
    """
    format_ = run.spec.wire.gradients
    at_random = format_ == "int8" and gradient
    random = generator(batch_seed("rounding", run.spec.run.seed, unit.key, 0)) if at_random else None
    return compressed(gradient, format_, random)
