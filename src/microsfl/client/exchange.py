"""The ways in which a unit is trained: across the cut, on an auxiliary head, or without any cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import time_ns
from typing import Any, Protocol

from ..core.client_side import differentiable
from ..core.formats import ErrorFeedback, compressed, expanded, size_bytes
from ..core.step import Tensors
from ..spec import RunSpec
from ..telemetry.traces import span
from ..wire.messages import Backward, Forward, Gradients, Outputs, Predict, Step
from .background import Awaited, Background, Senders, Submit, at_once
from .local_model import LocalModel
from .transport import SplitServers
from .units import Unit

Trained = tuple[Unit, list[float]]  # a unit that is through, and the loss of each of its batches


class Exchange(Protocol):
    """Trains units in their order."""

    def train(self, units: Iterable[Unit]) -> Iterator[Trained]:
        """Each unit once it is through."""
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


@dataclass
class Crossing:
    """A unit on its way through the body.

    activations: as they travel. needs_grad: of which a cut-layer gradient is wanted. answer: to the first request,
    which is the only one of a vanilla cut. began_ns: when the unit did, in unix time. back: to the backward, once the
    tail has been stepped.
    """

    unit: Unit
    activations: Tensors
    needs_grad: tuple[str, ...]
    answer: Awaited[Outputs] | Awaited[Gradients]
    began_ns: int = 0
    losses: list[float] = field(default_factory=list)
    other_bytes: int = 0
    back: Awaited[Gradients] | None = None


class SplitBody:
    """The body on the split servers, as one client in one run sees it.

    A unit crosses in three steps: `send` the activations, `turn` what comes back into gradients, `collect` the
    cut-layer gradient. Where units do not depend on one another, others may be sent in between; each step is taken in
    the order of the units, so that the numbers are those of one unit after the other. Tensors travel in the formats of
    `spec.wire`.
    """

    def __init__(self, spec: RunSpec, model: LocalModel, split: SplitServers) -> None:
        self.spec, self.model, self.split = spec, model, split
        self.waiting = model.ledger.phase("waiting")
        self.newest = 0
        self.version: int | None = None
        self._gradients = ErrorFeedback(spec.wire.gradients, is_on=spec.wire.error_feedback)

    @property
    def independent(self) -> bool:
        """Whether a unit can be sent before those ahead of it are through: nothing that they change is used by it."""
        strategy = self.spec.strategy
        front_waits = strategy.front_update == "batch"
        return self.version is not None and not front_waits and strategy.traits.body == "shared"

    def begin_round(self, version: int) -> None:
        """With versions that last a round, every unit is computed on the one that the round began with."""
        self.newest = max(self.newest, version)
        self.version = version if self.spec.strategy.commit_batches == "round" else None
        self._gradients.forget()  # so that a round that is trained again is the same

    def train(self, unit: Unit, activations: Tensors, needs_grad: tuple[str, ...]) -> Crossed:
        """All three steps of one unit.

        Raises:
            RoundClosed, Unreachable, NotFinite, TensorMismatch.
        """
        began_ns = time_ns()
        crossing = self.send(unit, activations, needs_grad, at_once)
        self.turn(crossing, at_once)
        crossed = self.collect(crossing)
        self.through(unit, began_ns)
        return crossed

    def span(self, unit: Unit, name: str) -> AbstractContextManager[str | None]:
        """A part of the unit's way, for whoever follows it."""
        return span(self.split.traces, unit.key, name)

    def through(self, unit: Unit, began_ns: int) -> None:
        """The unit is, whose way began then."""
        if self.split.traces is not None:
            self.split.traces.unit(unit.key, began_ns)

    def send(self, unit: Unit, activations: Tensors, needs_grad: tuple[str, ...], submit: Submit) -> Crossing:
        """Send activations, and the labels in a vanilla cut. needs_grad: of which a gradient is wanted."""
        sent = compressed(_detached(activations), self.spec.wire.activations)
        about = {
            **_about(unit), "needs_grad": needs_grad, "version": self.version, "at_least": self.newest,
            "activations": sent,
        }  # fmt: skip
        answer: Awaited[Outputs] | Awaited[Gradients]
        with self.waiting:  # where it is made at once; else it takes no time
            if self.spec.model.u_shaped:
                answer = submit(self.split.forward, Forward(**about))
            else:
                answer = submit(self.split.step, Step(**about, labels={"0": unit.y}))
        return Crossing(unit, sent, needs_grad, answer)

    def turn(self, crossing: Crossing, submit: Submit) -> None:
        """Wait for the outputs, step the tail on them, and send their gradient."""
        with self.waiting:
            unit, answer = crossing.unit, crossing.answer()
        if isinstance(answer, Gradients):
            crossing.losses, crossing.other_bytes = answer.losses["0"].tolist(), unit.y.nbytes
            crossing.back = lambda: answer
            return
        outputs = expanded(answer.outputs, self.spec.wire.activations, self.model.device)
        with self.span(unit, "tail"):
            result = self.model.tail_step(unit, outputs, answer.differentiable)
        gradients = self._gradients.compressed(result.gradients)
        crossing.losses = result.losses
        crossing.other_bytes = sum(tensor.nbytes for tensor in (*answer.outputs.values(), *gradients.values()))
        request = Backward(**_about(unit), needs_grad=crossing.needs_grad, version=answer.version, gradients=gradients)
        with self.waiting:
            crossing.back = submit(self.split.backward, request, crossing.activations)

    def collect(self, crossing: Crossing) -> Crossed:
        """Wait for the cut-layer gradient; the unit's contribution is stored then."""
        assert crossing.back is not None
        with self.waiting:
            back = crossing.back()
        self.newest = max(self.newest, back.newest)
        gradients = expanded(back.gradients, self.spec.wire.gradients, self.model.device)
        return Crossed(crossing.losses, gradients, crossing.other_bytes)

    def predictor(self, version: int) -> Callable[[Tensors], Tensors]:
        """Activations to outputs, by a version of the body. They travel as in training, so that what is evaluated is
        what is trained."""
        run, format_ = self.spec.run.name, self.spec.wire.activations

        def predict(activations: Tensors) -> Tensors:
            request = Predict(run=run, version=version, activations=compressed(activations, format_))
            with self.waiting:
                answer = self.split.predict(request)
            return expanded(answer.outputs, format_, self.model.device)

        return predict


@dataclass(frozen=True)
class Whole:
    """No cut: the tail is the whole model, or all of it behind a frozen front, and nothing is sent."""

    model: LocalModel

    def train(self, units: Iterable[Unit]) -> Iterator[Trained]:
        for unit in units:
            yield unit, self.model.tail_step(unit, _detached(self.model.forward(unit)), ()).losses


@dataclass(frozen=True)
class Across:
    """Each unit crosses the cut, and the front waits for its cut-layer gradient.

    in_flight: units that may be under way while others are computed, where units do not depend on one another.
    """

    model: LocalModel
    body: SplitBody
    in_flight: int = 0

    def train(self, units: Iterable[Unit]) -> Iterator[Trained]:
        in_flight = self.in_flight if self.body.independent else 0
        sent: deque[tuple[Crossing, Tensors]] = deque()
        turned: deque[tuple[Crossing, Tensors]] = deque()
        with Senders(in_flight) as senders:
            for unit in units:
                sent.append(self._send(unit, senders))
                if len(sent) > in_flight // 2:
                    turned.append(self._turn(*sent.popleft(), senders))
                if len(sent) + len(turned) > in_flight:
                    yield self._collect(*turned.popleft())
            while sent:
                turned.append(self._turn(*sent.popleft(), senders))
            while turned:
                yield self._collect(*turned.popleft())

    def _send(self, unit: Unit, senders: Senders) -> tuple[Crossing, Tensors]:
        began_ns = time_ns()
        with self.body.span(unit, "front"):
            activations = self.model.forward(unit)
        needs_grad = tuple(differentiable(activations))
        crossing = self.body.send(unit, activations, needs_grad, senders.submit)
        crossing.began_ns = began_ns
        return crossing, activations

    def _turn(self, crossing: Crossing, activations: Tensors, senders: Senders) -> tuple[Crossing, Tensors]:
        self.body.turn(crossing, senders.submit)
        return crossing, activations

    def _collect(self, crossing: Crossing, activations: Tensors) -> Trained:
        crossed, unit = self.body.collect(crossing), crossing.unit
        with self.body.span(unit, "front backward"):
            self.model.backward(unit, activations, crossed.gradients)
        self.body.through(unit, crossing.began_ns)
        return unit, crossed.losses


class Auxiliary:
    """Each batch trains the front on its auxiliary head, whose losses these are; every `send_every`-th is sent too.

    No gradient comes back for what is sent, so nothing waits for it: it is sent in the background, in order.
    """

    def __init__(self, model: LocalModel, body: SplitBody, background: Background) -> None:
        self.model, self.body, self.background = model, body, background
        self.send_every, self.wire = model.spec.strategy.send_every, model.spec.wire
        self._gradient_bytes = 0  # cut-layer gradients of all batches, of which none travels
        self._unsent_bytes = 0  # activations of the batches that are not sent
        self._unsent_samples = 0
        self._other_bytes_per_sample = 0.0

    def train(self, units: Iterable[Unit]) -> Iterator[Trained]:
        for unit in units:
            yield unit, [self._train(unit)]
        with self.body.waiting:
            self.background.wait()

    def _train(self, unit: Unit) -> float:
        activations = self.model.forward(unit)
        sent = _detached(activations)
        loss = self.model.auxiliary_step(unit, activations)
        taking = {name: activations[name] for name in differentiable(activations)}
        self._gradient_bytes += size_bytes(taking, self.wire.gradients)
        if unit.key.unit % self.send_every == 0:
            with self.body.waiting:
                self.background.put(lambda: self._send(unit, sent))
        else:
            self._unsent_bytes += size_bytes(sent, self.wire.activations)
            self._unsent_samples += unit.samples
        return loss

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


def _about(unit: Unit) -> dict[str, Any]:
    return {**vars(unit.key), "batches": unit.batches}


def _detached(tensors: Tensors) -> Tensors:
    return {name: tensor.detach() for name, tensor in tensors.items()}
