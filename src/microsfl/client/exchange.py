"""The ways in which a unit is trained: across the cut, on an auxiliary head, or without any cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core.client_side import differentiable
from ..core.step import Tensors
from ..spec import RunSpec
from ..wire.messages import Backward, Forward, Predict, Step
from .background import Background
from .local_model import LocalModel
from .transport import SplitServers
from .units import Unit


class Exchange(Protocol):
    """Trains units in their order."""

    def train(self, unit: Unit) -> list[float]:
        """The loss of each batch."""
        ...


@dataclass(frozen=True)
class Crossed:
    """What came of a unit's crossing: the loss of each batch and the cut-layer gradient.

    other_bytes: of the tensors that travelled besides the activations and their gradient: outputs and their gradient,
    or labels.
    """

    losses: list[float]
    gradients: Tensors
    other_bytes: int


class SplitBody:
    """The body on the split servers, as one client in one run sees it."""

    def __init__(self, spec: RunSpec, model: LocalModel, split: SplitServers) -> None:
        self.spec, self.model, self.split = spec, model, split
        self.newest = 0
        self.version: int | None = None
        self._cross = self._u_shaped if spec.model.u_shaped else self._vanilla

    def begin_round(self, version: int) -> None:
        """With versions that last a round, every unit is computed on the one that the round began with."""
        self.newest = max(self.newest, version)
        self.version = version if self.spec.strategy.commit_batches == "round" else None

    def train(self, unit: Unit, activations: Tensors, needs_grad: tuple[str, ...]) -> Crossed:
        """Send detached activations; the tail is stepped on what comes back. needs_grad: of which a gradient is wanted.

        Raises:
            RoundClosed, Unreachable, NotFinite, TensorMismatch.
        """
        return self._cross(unit, {**vars(unit.key), "batches": len(unit.x), "needs_grad": needs_grad}, activations)

    def predictor(self, version: int) -> Callable[[Tensors], Tensors]:
        """Activations to outputs, by a version of the body."""
        return lambda activations: (
            self.split.predict(Predict(run=self.spec.run.name, version=version, activations=activations)).outputs
        )

    def _u_shaped(self, unit: Unit, about: dict[str, Any], activations: Tensors) -> Crossed:
        request = Forward(**about, version=self.version, at_least=self.newest, activations=activations)
        answer = self.split.forward(request)
        result = self.model.tail_step(unit, answer.outputs, answer.differentiable)
        request_back = Backward(**about, version=answer.version, gradients=result.gradients)
        back = self.split.backward(request_back, activations)
        self.newest = max(self.newest, back.newest)
        return Crossed(
            result.losses, back.gradients, size_bytes((*answer.outputs.values(), *result.gradients.values()))
        )

    def _vanilla(self, unit: Unit, about: dict[str, Any], activations: Tensors) -> Crossed:
        labels = torch.cat(unit.y)
        request = Step(
            **about, version=self.version, at_least=self.newest, activations=activations, labels={"0": labels}
        )
        back = self.split.step(request)
        self.newest = max(self.newest, back.newest)
        return Crossed(back.losses["0"].tolist(), back.gradients, labels.nbytes)


@dataclass(frozen=True)
class Whole:
    """No cut: the tail is the whole model, or all of it behind a frozen front, and nothing is sent."""

    model: LocalModel

    def train(self, unit: Unit) -> list[float]:
        return self.model.tail_step(unit, _detached(self.model.forward(unit)), ()).losses


@dataclass(frozen=True)
class Across:
    """Each unit crosses the cut, and the front waits for its cut-layer gradient."""

    model: LocalModel
    body: SplitBody

    def train(self, unit: Unit) -> list[float]:
        activations = self.model.forward(unit)
        crossed = self.body.train(unit, _detached(activations), tuple(differentiable(activations)))
        self.model.backward(unit, activations, crossed.gradients)
        return crossed.losses


class Auxiliary:
    """Each batch trains the front on its auxiliary head, whose losses these are; every `send_every`-th is sent too.

    No gradient comes back for what is sent, so nothing waits for it: it is sent in the background, in order.
    """

    def __init__(self, model: LocalModel, body: SplitBody, background: Background) -> None:
        self.model, self.body, self.background = model, body, background
        self.send_every = model.spec.strategy.send_every
        self._gradient_bytes = 0  # cut-layer gradients of all batches, of which none travels
        self._unsent_bytes = 0  # activations of the batches that are not sent
        self._unsent_samples = 0
        self._other_bytes_per_sample = 0.0

    def train(self, unit: Unit) -> list[float]:
        activations = self.model.forward(unit)
        sent = _detached(activations)
        loss = self.model.auxiliary_step(unit, activations)
        self._gradient_bytes += size_bytes(activations[name] for name in differentiable(activations))
        if unit.key.unit % self.send_every == 0:
            self.background.put(lambda: self._send(unit, sent))
        else:
            self._unsent_bytes += size_bytes(sent.values())
            self._unsent_samples += unit.samples
        return [loss]

    @property
    def bytes_saved(self) -> int:
        """Bytes of tensors that exchanging every batch would have moved more than this did, once nothing is under way.

        The activations of the batches that were not sent, the outputs with their gradients (or, without a tail, the
        labels) that would have belonged to them, as large a sample as those that travelled, and the cut-layer
        gradients of all batches. Headers and the numbers of the losses are not counted.
        """
        others = round(self._unsent_samples * self._other_bytes_per_sample)
        return self._unsent_bytes + others + self._gradient_bytes

    def _send(self, unit: Unit, activations: Tensors) -> None:
        crossed = self.body.train(unit, activations, ())
        self._other_bytes_per_sample = crossed.other_bytes / unit.samples


def size_bytes(tensors: Iterable[Tensor]) -> int:
    """Of their elements together."""
    return sum(tensor.nbytes for tensor in tensors)


def _detached(tensors: Tensors) -> Tensors:
    return {name: tensor.detach() for name, tensor in tensors.items()}
