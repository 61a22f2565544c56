"""One client in one run: trains a round, evaluates a round. Computes locally, asks the servers for the rest."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.client_side import (
    OptimizerState,
    Stepper,
    differentiable,
    evaluate,
    exchanged,
    front_backward,
    front_forward,
    load_exchanged,
    pack_steppers,
    tail_step,
    unpack_steppers,
)
from ..core.cut import Parts
from ..core.partition import IntArray, Share, batches
from ..core.reduce import OptimizerRule
from ..core.step import Tensors
from ..core.unit import UnitKey, batch_seed, seed_of
from ..spec import RunSpec
from ..wire.messages import Backward, Forward, Predict, Step, Update
from ..zoo.datasets import Samples, take
from .transport import FedServer, SplitServers, Traffic

EVALUATION_BATCH = 512

# Seeds are global to a process in torch, so that of the clients hosted by one process only one computes at a time;
# the others wait for the network or the disk meanwhile.
computing = threading.RLock()


@dataclass(frozen=True)
class Task:
    """What the coordinator asks of a client."""

    kind: str
    run: str
    round: int
    client: str
    index: int
    body_version: int
    client_version: int


@dataclass(frozen=True)
class LocalData:
    """A client's samples: indices into its data sets."""

    train: Samples
    test: Samples
    share: Share


@dataclass(frozen=True)
class Unit:
    """Consecutive batches of one size, computed in one request."""

    key: UnitKey
    x: list[Tensor]
    y: list[Tensor]
    front_seeds: list[int]
    tail_seeds: list[int]


class Trainer:
    """Front, tail and their optimizers of one client in one run.

    Nothing here has to last: weights, and after a restart the optimizers' state too, come from the fed server.
    """

    def __init__(
        self,
        spec: RunSpec,
        client: str,
        parts: Parts,
        data: LocalData,
        split: SplitServers,
        fed: FedServer,
        device: torch.device,
    ) -> None:
        self.spec, self.client, self.data, self.split, self.fed, self.device = spec, client, data, split, fed, device
        self.front = copy.deepcopy(parts.front).to(device)
        self.tail = copy.deepcopy(parts.tail).to(device)
        rule = OptimizerRule(spec.strategy.client_optimizer.name, spec.strategy.client_optimizer.options)
        self.front_stepper = Stepper(self.front, rule, spec.strategy.front_update)
        self.tail_stepper = Stepper(self.tail, rule, spec.strategy.tail_update)
        self.steppers = {"front": self.front_stepper, "tail": self.tail_stepper}
        self.newest = 0
        self._holds: int | None = None  # the version that front and tail have, while they are as it was downloaded
        self._optimizers: dict[int, OptimizerState] = {0: pack_steppers(self.steppers)}  # as the round begins with

    def train(self, task: Task) -> dict[str, float | int | None]:
        """Train one round and upload the result; the report's metrics."""
        started_at, clock, before = time.time(), time.perf_counter(), self._traffic()
        self._begin(task)
        total, samples, count = 0.0, 0, 0
        for unit in self._units(task.round):
            losses = self._unit(unit, self._version(task))
            total += sum(loss * len(y) for loss, y in zip(losses, unit.y, strict=True))
            samples += sum(len(y) for y in unit.y)
            count += len(unit.y)
        self._finish(task, samples)
        after = self._traffic()
        return {
            "train_loss": total / samples,
            "samples": samples,
            "batches": count,
            "seconds": time.perf_counter() - clock,
            "bytes_up": after.up - before.up,
            "bytes_down": after.down - before.down,
            "started_at": started_at,
        }

    def evaluate(self, task: Task) -> dict[str, float | int | None]:
        """Evaluate the round's averaged model on this client's test samples; the report's metrics."""
        started_at, clock, before = time.time(), time.perf_counter(), self._traffic()
        self._load(task)
        loss, right, count = 0.0, 0, len(self.data.share.test)
        for start in range(0, count, EVALUATION_BATCH):
            x, y = take(self.data.test, self.data.share.test[start : start + EVALUATION_BATCH])
            one_loss, one_right = evaluate(
                self.front, self.tail, self._predictor(task), x.to(self.device), y.to(self.device)
            )
            loss, right = loss + one_loss, right + one_right
        after = self._traffic()
        return {
            "test_loss": loss / count if count and math.isfinite(loss) else None,
            "test_accuracy": right / count if count else None,
            "test_samples": count,
            "seconds": time.perf_counter() - clock,
            "bytes_up": after.up - before.up,
            "bytes_down": after.down - before.down,
            "started_at": started_at,
        }

    def _begin(self, task: Task) -> None:
        """Weights and optimizers as the round begins with them, also when it is replayed or this process is new."""
        if task.round not in self._optimizers:
            self._optimizers = {task.round: self.fed.optimizer(task.run, task.round - 1, self.client)}
        with computing:
            unpack_steppers(self.steppers, self._optimizers[task.round])
        self.newest = max(self.newest, task.body_version)
        self._load(task)
        self._holds = None

    def _finish(self, task: Task, samples: int) -> None:
        """Step what waits for the round's end, and upload."""
        with computing:
            self.front_stepper.step()
            self.tail_stepper.step()
            weights = self._exchanged()
            state = copy.deepcopy(pack_steppers(self.steppers))
        optimizer, scalars = {name: tensor.cpu() for name, tensor in state[0].items()}, state[1]
        self.fed.upload(
            Update(
                run=task.run,
                round=task.round,
                client=self.client,
                samples=samples,
                scalars=scalars,
                weights=weights,
                optimizer=optimizer,
            )
        )
        self._optimizers = {task.round: self._optimizers[task.round], task.round + 1: state}

    def _load(self, task: Task) -> None:
        if self._holds == task.client_version:
            return
        weights = self.fed.tensors(task.run, task.client_version)
        with computing:
            load_exchanged(self.front, self.tail, weights)
        self._holds = task.client_version

    def _exchanged(self) -> Tensors:
        tensors = exchanged(self.front, self.tail, front_is_frozen=self.spec.strategy.front_update == "never")
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    def _version(self, task: Task) -> int | None:
        """With sync = "round" every unit of the round is computed on the version that the round began with."""
        return task.body_version if self.spec.strategy.sync == "round" else None

    def _units(self, round_: int) -> Iterator[Unit]:
        spec, seed = self.spec, self.spec.run.seed
        order = batches(
            len(self.data.share.train),
            batch_size=spec.data.batch_size,
            epochs=spec.strategy.local_epochs,
            seed=seed_of("order", seed, self.client, round_),
        )
        first = 0
        for group in group_batches(order, _unit_size(spec)):
            key = UnitKey(spec.run.name, round_, self.client, first)
            pairs = [take(self.data.train, self.data.share.train[indices]) for indices in group]
            yield Unit(
                key,
                [x for x, _ in pairs],
                [y for _, y in pairs],
                [batch_seed("front", seed, key, i) for i in range(len(group))],
                [batch_seed("tail", seed, key, i) for i in range(len(group))],
            )
            first += len(group)

    def _unit(self, unit: Unit, version: int | None) -> list[float]:
        with computing:
            activations = front_forward(
                self.front, unit.x, unit.front_seeds, self.device, front_is_trained=self.front_stepper.rhythm != "never"
            )
            needs_grad = tuple(differentiable(activations))
            sent = {name: tensor.detach() for name, tensor in activations.items()}
        about: dict[str, Any] = {
            **vars(unit.key),
            "batches": len(unit.x),
            "needs_grad": needs_grad,
        }
        exchange = self._u_shaped if self.spec.model.u_shaped else self._vanilla
        losses, gradients = exchange(unit, about, version, sent)
        with computing:
            if needs_grad:
                front_backward(activations, gradients)
                self.front_stepper.after_backward(len(unit.x))
        return losses

    def _u_shaped(
        self, unit: Unit, about: dict[str, Any], version: int | None, sent: Tensors
    ) -> tuple[list[float], Tensors]:
        answer = self.split.forward(Forward(**about, version=version, at_least=self.newest, activations=sent))
        with computing:
            outputs = {name: tensor.to(self.device) for name, tensor in answer.outputs.items()}
            result = tail_step(self.tail_stepper, outputs, answer.differentiable, unit.y, unit.tail_seeds)
        back = self.split.backward(Backward(**about, version=answer.version, gradients=result.gradients), sent)
        self.newest = max(self.newest, back.newest)
        return result.losses, back.gradients

    def _vanilla(
        self, unit: Unit, about: dict[str, Any], version: int | None, sent: Tensors
    ) -> tuple[list[float], Tensors]:
        labels = {"0": torch.cat(unit.y)}
        back = self.split.step(Step(**about, version=version, at_least=self.newest, activations=sent, labels=labels))
        self.newest = max(self.newest, back.newest)
        return back.losses["0"].tolist(), back.gradients

    def _predictor(self, task: Task) -> Any:
        def predict(activations: Tensors) -> Tensors:
            request = Predict(run=task.run, version=task.body_version, activations=activations)
            return {name: tensor.to(self.device) for name, tensor in self.split.predict(request).outputs.items()}

        return predict

    def _traffic(self) -> Traffic:
        counted = (self.split.traffic, self.fed.traffic)
        return Traffic(sum(one.up for one in counted), sum(one.down for one in counted))


def group_batches(order: list[IntArray], size: int) -> Iterator[list[IntArray]]:
    """Consecutive batches in groups of at most `size`, each of one batch length."""
    group: list[IntArray] = []
    for indices in order:
        if group and (len(group) == size or len(group[0]) != len(indices)):
            yield group
            group = []
        group.append(indices)
    if group:
        yield group


def _unit_size(spec: RunSpec) -> int:
    return spec.strategy.unit if isinstance(spec.strategy.unit, int) else 1
