"""One client in one run: trains a round, evaluates a round. Computes locally, asks the servers for the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from ..core.client_side import OptimizerState
from ..core.step import Tensors
from ..spec import RunSpec
from ..wire.messages import Update
from ..zoo.datasets import take
from .background import Background
from .exchange import Across, Auxiliary, Exchange, SplitBody, Whole
from .ledger import Ledger
from .local_model import LocalModel
from .transport import FedServer, SplitServers
from .units import LocalData, Unit, units_of_round

EVALUATION_BATCH = 512

Metrics = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """What the coordinator asks of a client.

    after: where client-side weights are handed on, whose update of this round to begin with; None: the client version.
    """

    kind: str
    run: str
    round: int
    client: str
    index: int
    body_version: int
    client_version: int
    after: str | None = None


@dataclass
class Tally:
    """What a round of training was, added up unit by unit."""

    loss: float = 0.0
    samples: int = 0
    batches: int = 0
    bytes_saved: int | None = None

    def add(self, unit: Unit, losses: list[float]) -> None:
        self.loss += sum(losses) * unit.samples / unit.batches
        self.samples += unit.samples
        self.batches += unit.batches


class Trainer:
    """One client's part of a run.

    Nothing here has to last: weights, and after a restart the optimizers' state too, come from the fed server, or, in
    a strategy that never sends them anywhere, from training the rounds before again.

    Args:
        modules: what a client holds with the run's initial weights (`zoo.parts.client_side`); they are copied.
        in_flight: units that may be under way while training goes on, where they do not depend on one another.
    """

    def __init__(
        self,
        spec: RunSpec,
        client: str,
        modules: Mapping[str, nn.Module],
        data: LocalData,
        split: SplitServers,
        fed: FedServer,
        device: torch.device,
        in_flight: int = 0,
    ) -> None:
        self.spec, self.client, self.data, self.split, self.fed = spec, client, data, split, fed
        self.traits, self.in_flight = spec.strategy.traits, in_flight
        self.ledger = Ledger()
        self.model = LocalModel(spec, client, modules, device, self.ledger)
        self.body = SplitBody(spec, self.model, split)
        self._traffic = {"split": split.traffic, "fed": fed.traffic}
        self._fresh_weights = {} if self.traits.federated else self.model.weights()
        self._fresh_optimizers = self.model.optimizers()
        self._rounds_done: int | None = 0  # behind the model, when nobody else's weights were loaded; None: unknown
        self._holds: int | None = None  # the version that the model has, while it is as it was downloaded
        self._optimizers: dict[int, OptimizerState] = {}  # as the round begins with

    def train(self, task: Task) -> Metrics:
        """Train one round and upload the result; the report's metrics."""
        return _drain(self.steps(task))

    def steps(self, task: Task) -> Generator[None, None, Metrics]:
        """`train` with a pause after each unit, in which others may train: their time is not counted in `seconds`."""
        started_at, before = time.time(), self._count()
        self._begin(task)
        work = self._work(task.round)
        while True:
            try:
                next(work)
            except StopIteration as done:
                tally: Tally = done.value
                break
            self.ledger.pause()
            yield
            self.ledger.go_on()
        if self.traits.federated:
            with self.ledger.phase("upload"):
                self._upload(task, tally.samples)
        return {
            "train_loss": tally.loss / tally.samples,
            "samples": tally.samples,
            "batches": tally.batches,
            **({} if tally.bytes_saved is None else {"bytes_saved": tally.bytes_saved}),
            **self._counted(before),
            "started_at": started_at,
        }

    def evaluate(self, task: Task) -> Metrics:
        """Evaluate the round's model on this client's test samples; the report's metrics."""
        started_at, before = time.time(), self._count()
        if self.traits.federated:
            self._load(task)
        else:
            self._train_until(task.round + 1)
        loss, right, count = self._test(task)
        return {
            "test_loss": loss / count if count and math.isfinite(loss) else None,
            "test_accuracy": right / count if count else None,
            "test_samples": count,
            **self._counted(before),
            "started_at": started_at,
        }

    def _test(self, task: Task) -> tuple[float, int, int]:
        """(summed loss, right answers, samples) of all test samples."""
        body: Callable[[Tensors], Tensors] = self.body.predictor(task.body_version) if self.traits.split else _same
        loss, right, count = 0.0, 0, len(self.data.share.test)
        for batch, start in enumerate(range(0, count, EVALUATION_BATCH)):
            with self.ledger.phase("data"):
                x, y = take(self.data.test, self.data.share.test[start : start + EVALUATION_BATCH])
            one_loss, one_right = self.model.evaluate(body, x, y, round_=task.round, batch=batch)
            loss, right = loss + one_loss, right + one_right
        return loss, right, count

    def _begin(self, task: Task) -> None:
        """Weights and optimizers as the round begins with them, also when it is replayed or this process is new."""
        if not self.traits.federated:
            self._train_until(task.round)
            return
        with self.ledger.phase("hand-out"):
            if task.round not in self._optimizers:
                self._optimizers = {task.round: self._optimizers_before(task)}
            self.model.load_optimizers(self._optimizers[task.round])
            if task.after is None:
                self._load(task)
            else:
                self.model.load(self.fed.handed_on(task.run, task.round, task.after))
        self.body.begin_round(task.body_version)
        self._holds = None

    def _optimizers_before(self, task: Task) -> OptimizerState:
        """As this client's last training before the round left them."""
        if task.round == 0:
            return self._fresh_optimizers
        return self.fed.optimizer(task.run, task.round - 1, self.client)

    def _work(self, round_: int) -> Generator[None, None, Tally]:
        """Train a round from what the model holds now; a pause after each unit."""
        self._rounds_done = None
        self.model.begin_round(round_)
        tally = Tally()
        with Background(self.in_flight if self.traits.auxiliary else 0) as background:
            exchange = self._exchange(background)
            units = self.ledger.each("data", units_of_round(self.spec, self.client, self.data, round_))
            for unit, losses in exchange.train(units):
                tally.add(unit, losses)
                yield
        if isinstance(exchange, Auxiliary):
            tally.bytes_saved = exchange.bytes_saved
        self.model.end_round()
        self._rounds_done = round_ + 1
        return tally

    def _exchange(self, background: Background) -> Exchange:
        if not self.traits.split:
            return Whole(self.model)
        if self.traits.auxiliary:
            return Auxiliary(self.model, self.body, background)
        return Across(self.model, self.body, self.in_flight)

    def _train_until(self, round_: int) -> None:
        """Where weights stay with the client: have every round before `round_` behind it, and none more."""
        if self._rounds_done is None or self._rounds_done > round_:
            self.model.load(self._fresh_weights)
            self.model.load_optimizers(self._fresh_optimizers)
            self._rounds_done = 0
        for missing in range(self._rounds_done, round_):
            _drain(self._work(missing))

    def _upload(self, task: Task, samples: int) -> None:
        state = self.model.optimizers()
        self.fed.upload(
            Update(
                run=task.run,
                round=task.round,
                client=self.client,
                samples=samples,
                scalars=state[1],
                weights=self.model.weights(),
                optimizer={name: tensor.cpu() for name, tensor in state[0].items()},
            )
        )
        self._optimizers = {task.round: self._optimizers[task.round], task.round + 1: state}

    def _load(self, task: Task) -> None:
        """The client-side version that the task names, unless the model still has it."""
        if self._holds != task.client_version:
            with self.ledger.phase("hand-out"):
                self.model.load(self.fed.tensors(task.run, task.client_version))
            self._holds = task.client_version

    def _count(self) -> tuple[int, int]:
        """Begin to count what a task takes: the bytes that went up and down before."""
        self.ledger.begin()
        for traffic in self._traffic.values():
            traffic.begin()
        return self._moved()

    def _counted(self, before: tuple[int, int]) -> Metrics:
        """Seconds, where they went, and bytes since `_count`."""
        phases, (up, down) = self.ledger.end(), self._moved()
        requests = {
            f"{kind}/{name}": value for kind, one in self._traffic.items() for name, value in one.spent().items()
        }
        return {
            "seconds": math.fsum(phases.values()),
            "spent": {name: round(value, 6) for name, value in (phases | requests).items()},
            "bytes_up": up - before[0],
            "bytes_down": down - before[1],
        }

    def _moved(self) -> tuple[int, int]:
        counted = self._traffic.values()
        return sum(one.up for one in counted), sum(one.down for one in counted)


def _drain(steps: Generator[None, None, Result]) -> Result:
    """What the generator returns, once it is through."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result


def _same(activations: Tensors) -> Tensors:
    return activations
