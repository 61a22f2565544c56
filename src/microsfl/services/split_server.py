"""The split server: computes the body for whoever asks, and keeps nothing that the store does not have.

Functions from message to message above; `main` makes a process of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from cachetools import LRUCache
from torch import Tensor

from ..config import MB, SplitServerSettings
from ..core import step as core
from ..core.codec import make_optimizer
from ..core.reduce import BodyState, OptimizerRule
from ..core.unit import UnitKey, batch_seed
from ..device import choose_device, warm_up
from ..errors import ActivationsMissing, InvalidSetting, MicrosflError, TensorMismatch
from ..process import event, start_logging
from ..spec import RunSpec
from ..store.objects import open_store
from ..store.verbs import Store
from ..sync.body import BodySync, SyncRule
from ..sync.runs import create_run, load_run
from ..wire.messages import Activations, Backward, Forward, Gradients, Outputs, Predict, Step, Tensors, UnitMessage
from ..zoo.parts import build_parts
from .replica import Json, Replica, number_field, serve_replica, text_field

ROLE = "split-server"
RUNS_KEPT = 16
SHAPES_KEPT = 256


@dataclass(frozen=True)
class Held:
    """A forward that waits for its backward: soft state, as the activations are in the store too."""

    version: int
    batches: int
    forward: core.Forward
    size_bytes: int

    def fits(self, request: Backward) -> bool:
        """False for another version or division, and for activations that came along: those are to be used."""
        return (self.version, self.batches) == (request.version, request.batches) and not request.activations


@dataclass
class Run:
    """What a replica keeps of a run: its specification and its body's sync. All of it can be read again."""

    spec: RunSpec
    sync: BodySync
    graph_sizes: LRUCache[tuple[Any, ...], int]


class Versions(LRUCache[tuple[str, int], BodyState]):
    """Versions in memory, bounded in bytes. One that goes takes the graphs on it along, as they hold its weights."""

    def __init__(self, limit_bytes: float, on_drop: Callable[[tuple[str, int]], None]) -> None:
        super().__init__(limit_bytes, getsizeof=lambda state: state.size_bytes)
        self.on_drop = on_drop

    def popitem(self) -> tuple[tuple[str, int], BodyState]:
        key, state = super().popitem()
        self.on_drop(key)
        return key, state


class SplitServer:
    """Every request of the data plane as a function. Not thread-safe: one compute thread calls it."""

    def __init__(self, settings: SplitServerSettings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.device = choose_device(settings.device)
        self.runs: LRUCache[str, Run] = LRUCache(RUNS_KEPT)
        self.versions = Versions(settings.weights_cache_mb * MB, self._drop_graphs)
        self.graphs: LRUCache[UnitKey, Held] = LRUCache(settings.graph_cache_mb * MB, lambda held: held.size_bytes)
        self.writer = WriteBehind(int(settings.write_behind_mb * MB))
        self.counts = {"units": 0, "graph_hits": 0, "recomputed": 0, "commits": 0}

    def prepare(self, call: Json) -> Json:
        """Create the run in the body area, with version 0."""
        spec = RunSpec.parse(call.get("spec") or {})
        known = self.runs.get(spec.run.name)
        if known is not None and known.spec.decisive != spec.decisive:  # the store may be a new one
            for version in [key for key in self.versions if key[0] == spec.run.name]:
                self._drop_graphs(version)
                del self.versions[version]
        run = self._open(spec)
        create_run(self.store, spec)
        run.sync.initialize()
        return self.status(spec.run.name)

    def forward(self, request: Forward) -> Outputs:
        """Activations to outputs; keeps the graph and hands the activations to the store."""
        run = self._run(request.run)
        run.sync.chain.check_round(request.round)
        version = run.sync.pick(request.version, request.at_least)
        forward = self._forward(run, request, version, request.activations, request.needs_grad)
        self._hold(run, request, version, forward)
        copy = Activations(**_unit(request), needs_grad=request.needs_grad, activations=request.activations)
        self.writer.put(copy, run.sync)
        return Outputs(version=version, differentiable=tuple(forward.differentiable()), outputs=forward.answer())

    def backward(self, request: Backward) -> Gradients:
        """Output gradients to the cut-layer gradient; the contribution is stored before this returns."""
        run = self._run(request.run)
        run.sync.chain.check_round(request.round)
        held = self.graphs.pop(request.key, None)
        if held is not None and held.fits(request):
            self.counts["graph_hits"] += 1
            forward = held.forward
        else:
            self.counts["recomputed"] += 1
            forward = self._again(run, request)
        gradients = core.body_backward(forward, self._here(request.gradients))
        answer = self._contribute(run, request, request.version, forward, gradients)
        self.writer.forget(request.key, run.sync)
        return answer

    def step(self, request: Step) -> Gradients:
        """Vanilla cut: forward, loss, backward and contribution in one."""
        run = self._run(request.run)
        run.sync.chain.check_round(request.round)
        version = self._version_of(run, request)
        if request.labels.keys() != {"0"} or "0" not in request.activations:
            raise TensorMismatch("A Step needs activations '0', … and labels '0'.")
        forward = self._forward(run, request, version, request.activations, request.needs_grad)
        labels = request.labels["0"].to(self.device)
        gradients, losses = core.body_step(forward, labels, request.batches)
        answer = self._contribute(run, request, version, forward, gradients)
        return answer.model_copy(update={"losses": {"0": losses}})

    def predict(self, request: Predict) -> Outputs:
        """Evaluation forward; leaves no trace."""
        sync = self._run(request.run).sync
        version = sync.pick(request.version, request.at_least)
        outputs = core.body_predict(sync.state(version).body, self._here(request.activations))
        return Outputs(version=version, outputs=outputs)

    def reduce(self, call: Json) -> Json:
        """Close a round: commit what waits in it."""
        run = self._run(text_field(call, "run"))
        before = run.sync.chain.head().version
        commit = run.sync.close(number_field(call, "round"))
        self.counts["commits"] += commit.version > before
        return {
            "version": commit.version,
            "round": commit.round,
            "contributions": len(commit.contributions),
            "left_out": len(commit.left_out),
            "batches": sum(one.batches for one in commit.contributions),
        }

    def weights(self, run: str, version: int | None) -> tuple[int, bytes]:
        """A version's weights file."""
        chain = self._run(run).sync.chain
        commit = chain.head() if version is None else chain.get(version)
        return commit.version, chain.read(commit.weights)

    def status(self, run: str) -> Json:
        """The newest version, the round that takes contributions, and whether its closing has begun."""
        return self._run(run).sync.chain.status()

    def info(self) -> Json:
        """Figures of this process since it started."""
        return {
            **self.counts,
            "graph_cache_bytes": int(self.graphs.currsize),
            "weights_cache_bytes": int(self.versions.currsize),
        }

    def _run(self, name: str) -> Run:
        known = self.runs.get(name)
        return known if known is not None else self._open(load_run(self.store, name))

    def _open(self, spec: RunSpec) -> Run:
        strategy = spec.strategy
        if strategy.max_staleness == "auto" or strategy.unit == "auto":
            raise InvalidSetting(
                "strategy.max_staleness and strategy.unit must be numbers once a run exists, not 'auto'."
            )
        body = build_parts(spec, self.settings.allow_models).body.to(self.device)
        optimizer = OptimizerRule(strategy.body_optimizer.name, strategy.body_optimizer.options)
        if any(True for _ in body.parameters()):  # wrong options are told now, not at the first commit
            make_optimizer(optimizer.name, body.parameters(), optimizer.options)
        rule = SyncRule(
            sync=strategy.sync,
            reduce=strategy.reduce,
            max_staleness=strategy.max_staleness,
            unit=strategy.unit,
            optimizer=optimizer,
        )
        run = Run(spec, BodySync(self.store, spec.run.name, body, rule, self.versions), LRUCache(SHAPES_KEPT))
        self.runs[spec.run.name] = run
        return run

    def _forward(
        self, run: Run, unit: UnitMessage, version: int, activations: Tensors, needs_grad: Sequence[str]
    ) -> core.Forward:
        unknown = set(needs_grad) - activations.keys()
        if unknown or not activations:
            raise TensorMismatch(f"needs_grad names {sorted(unknown)}; the activations are {sorted(activations)}.")
        body = run.sync.state(version).body
        seeds = _seeds(run, unit)
        self.counts["units"] += 1
        return core.body_forward(body, self._here(activations), needs_grad=needs_grad, seeds=seeds)

    def _again(self, run: Run, request: Backward) -> core.Forward:
        """The forward of the unit once more, from activations that came along or that the store has."""
        activations, needs_grad = request.activations, request.needs_grad
        if not activations:
            stored = run.sync.activations(request.key)
            if stored is None:
                raise ActivationsMissing(f"The activations of {request.key} are not here any more; send them again.")
            if stored.batches != request.batches:
                raise TensorMismatch(
                    f"The unit came with {stored.batches} batches and goes back with {request.batches}."
                )
            activations, needs_grad = stored.activations, stored.needs_grad
        version = run.sync.pick(request.version, 0)
        return self._forward(run, request, version, activations, needs_grad)

    def _hold(self, run: Run, request: Forward, version: int, forward: core.Forward) -> None:
        """Keep the graph while there is room and its version's weights are kept too."""
        if not self.graphs.maxsize or (request.run, version) not in self.versions:
            return
        shape = (request.batches, request.needs_grad, *((n, t.shape, t.dtype) for n, t in request.activations.items()))
        if shape not in run.graph_sizes:
            seeds = _seeds(run, request)
            run.graph_sizes[shape] = core.graph_bytes(forward.body, forward.inputs, request.needs_grad, seeds)
        size = run.graph_sizes[shape]
        if size <= self.graphs.maxsize:
            self.graphs[request.key] = Held(version, request.batches, forward, size)

    def _contribute(
        self, run: Run, unit: UnitMessage, version: int, forward: core.Forward, gradients: core.Gradients
    ) -> Gradients:
        samples = next(iter(forward.inputs.values())).shape[0]
        before = run.sync.chain.known().version
        run.sync.contribute(unit, version, samples, gradients, forward.buffers)
        run.sync.commit_if_due(unit.round, unit.batches)
        newest = run.sync.chain.known().version
        self.counts["commits"] += newest > before
        return Gradients(version=version, newest=newest, gradients=gradients.inputs)

    def _version_of(self, run: Run, request: Step) -> int:
        """A repeated step computes with the version of the first time, so that it gets the same answer."""
        done = run.sync.contribution(request.key) if request.version is None else None
        return run.sync.pick(request.version, request.at_least) if done is None else done.version

    def _here(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def _drop_graphs(self, version: tuple[str, int]) -> None:
        for key in [key for key, held in self.graphs.items() if (key.run, held.version) == version]:
            del self.graphs[key]


class WriteBehind:
    """Stores activations from a thread of its own, bounded in bytes: what does not fit is not stored.

    Losing one costs nothing but that the client may have to send it again.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.waiting_bytes = 0
        self.lock = threading.Lock()
        self.thread = ThreadPoolExecutor(1, "write-behind")

    def put(self, message: Activations, sync: BodySync) -> None:
        size = sum(tensor.nbytes for tensor in message.activations.values())
        with self.lock:
            if self.waiting_bytes + size > self.limit_bytes:
                return
            self.waiting_bytes += size
        self._run(self._write, message, sync, size)

    def forget(self, key: UnitKey, sync: BodySync) -> None:
        """Remove what `put` stored, or is about to; whoever closes the round removes what stays."""
        if self.limit_bytes:
            self._run(sync.forget_activations, key)

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        self.thread.submit(self._guarded, function, *arguments)

    def close(self) -> None:
        self.thread.shutdown(wait=True)

    def _write(self, message: Activations, sync: BodySync, size: int) -> None:
        try:
            sync.hand_over(message)
        finally:
            with self.lock:
                self.waiting_bytes -= size

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except MicrosflError as error:
            event("write-behind failed", logging.WARNING, code=error.code, message=str(error))


def create_replica(settings: SplitServerSettings, store: Store) -> Replica:
    """The split server's table of functions."""
    server = SplitServer(settings, store)
    return Replica(
        role=ROLE,
        messages={
            "/v1/forward": (Forward, server.forward),
            "/v1/backward": (Backward, server.backward),
            "/v1/step": (Step, server.step),
            "/v1/predict": (Predict, server.predict),
        },
        calls={"/v1/runs": server.prepare, "/v1/reduce": server.reduce},
        weights=server.weights,
        status=server.status,
        info=server.info,
        close=server.writer.close,
    )


def main(settings: SplitServerSettings) -> None:
    """Run a split server until it is asked to end."""
    start_logging(ROLE, settings.log_level)
    torch.set_num_threads(settings.threads)
    warm_up()
    store = open_store(settings.store_url)
    store.probe()
    serve_replica(create_replica(settings, store), settings)


def _unit(message: UnitMessage) -> dict[str, Any]:
    return {name: getattr(message, name) for name in UnitMessage.model_fields}


def _seeds(run: Run, unit: UnitMessage) -> list[int]:
    return [batch_seed("body", run.spec.run.seed, unit.key, batch) for batch in range(unit.batches)]
