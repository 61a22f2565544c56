"""What a client computes by itself: front, tail and auxiliary head with their optimizers."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from ..core.client_side import (
    OptimizerState,
    Stepper,
    TailResult,
    auxiliary_step,
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
from ..core.privacy import protect
from ..core.randomness import SecretGenerator, generator
from ..core.reduce import OptimizerRule
from ..core.schedule import Schedule
from ..core.step import Tensors
from ..core.unit import batch_seed, seed_of
from ..spec import RunSpec
from .ledger import Ledger
from .units import Unit

# Seeds are global to a process in torch, so that of the clients hosted by one process only one computes at a time;
# the others wait for the network or the disk meanwhile.
computing = threading.RLock()


class Computing:
    """A `with` block that has the lock on computing. What it waits for that is charged to "turn", the rest to `part`,
    or to the phase in which it is when no part is named."""

    def __init__(self, ledger: Ledger, part: str | None = None) -> None:
        self.turn, self.part = ledger.phase("turn"), part and ledger.phase(part)

    def __enter__(self) -> None:
        if not computing.acquire(blocking=False):
            with self.turn:
                computing.acquire()
        if self.part:
            self.part.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.part:
            self.part.__exit__(kind, error, trace)
        computing.release()


class LocalModel:
    """The modules that one client holds in one run, copied from `modules`, and what is computed with them alone.

    Tensors come and go on any device. What leaves the front is protected as the run's `privacy` says.
    """

    def __init__(
        self,
        spec: RunSpec,
        client: str,
        modules: Mapping[str, nn.Module],
        device: torch.device,
        ledger: Ledger | None = None,
    ) -> None:
        self.spec, self.client, self.device, self.ledger = spec, client, device, ledger or Ledger()
        self.parts = {name: copy.deepcopy(module).to(device) for name, module in modules.items()}
        strategy = spec.strategy
        rule = OptimizerRule(strategy.client_optimizer.name, strategy.client_optimizer.options)
        rhythms = {"front": strategy.front_update, "tail": strategy.tail_update, "aux": "batch"}
        self.steppers = {
            name: Stepper(part, rule, rhythms[name], strategy.proximal_mu) for name, part in self.parts.items()
        }
        self._computing, self._front, self._tail, self._aux = (
            Computing(self.ledger, part) for part in (None, "front", "tail", "aux")
        )
        self.schedule = Schedule.of(strategy, spec.run.rounds)
        self._secret = os.urandom(32)  # never leaves this process

    def begin_round(self, round_: int) -> None:
        """With the weights and optimizers that it has now."""
        for stepper in self.steppers.values():
            stepper.begin_round(self.schedule.factor(round_))

    def end_round(self) -> None:
        """Step what waits for the round's end."""
        with self._computing:
            for stepper in self.steppers.values():
                stepper.step()

    def weights(self) -> Tensors:
        """A copy of what clients exchange, on the CPU."""
        with self._computing:
            tensors = exchanged(self.parts, front_is_frozen=self.spec.strategy.front_update == "never")
            return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        with self._computing:
            load_exchanged(self.parts, weights)

    def optimizers(self) -> OptimizerState:
        """A copy of the optimizers' state."""
        with self._computing:
            return copy.deepcopy(pack_steppers(self.steppers))

    def load_optimizers(self, state: OptimizerState) -> None:
        with self._computing:
            unpack_steppers(self.steppers, state)

    def forward(self, unit: Unit) -> Tensors:
        """The unit's activations, with their graph; detached they may be sent."""

        def protected(tensors: Tensors, place: int) -> Tensors:
            return self._protected(tensors, "train", unit.key.round, unit.key.unit + place)

        with self._front:
            return front_forward(
                self.parts["front"],
                unit.x,
                unit.front_seeds,
                self.device,
                front_is_trained=self.steppers["front"].rhythm != "never",
                protected=protected if self.spec.privacy.protects else None,
            )

    def backward(self, unit: Unit, activations: Tensors, gradients: Tensors) -> None:
        """The cut-layer gradient through the front, and its step; nothing when no activation needs a gradient."""
        if differentiable(activations):
            with self._front:
                front_backward(activations, gradients)
                self.steppers["front"].after_backward(unit.batches)

    def tail_step(self, unit: Unit, outputs: Tensors, wanted: Sequence[str]) -> TailResult:
        """Tail, loss and step of a unit. wanted: outputs that get a gradient."""
        with self._tail:
            here = {name: tensor.to(self.device) for name, tensor in outputs.items()}
            return tail_step(self.steppers["tail"], here, wanted, unit.y, unit.tail_seeds)

    def auxiliary_step(self, unit: Unit, activations: Tensors) -> float:
        """The loss of a unit of one batch on the auxiliary head; front and head are stepped on it."""
        seed = batch_seed("aux", self.spec.run.seed, unit.key, 0)
        with self._aux:
            return auxiliary_step(self.steppers["front"], self.steppers["aux"], activations, unit.y, seed)

    def evaluate(
        self, body: Callable[[Tensors], Tensors], x: Tensor, y: Tensor, *, round_: int, batch: int
    ) -> tuple[float, int]:
        """(summed loss, right answers) on one batch of test samples. `body` computes what is between front and tail.

        It does not hold the lock on computing: nothing here draws from torch's own generators.
        """

        def protected_body(activations: Tensors) -> Tensors:
            outputs = body(self._protected(activations, "evaluate", round_, batch))
            return {name: tensor.to(self.device) for name, tensor in outputs.items()}

        parts = (self.parts["front"], self.parts["tail"])
        with self.ledger.phase("model"):
            return evaluate(*parts, protected_body, x.to(self.device), y.to(self.device))

    def _protected(self, activations: Tensors, purpose: str, round_: int, batch: int) -> Tensors:
        """What leaves the front: floating-point tensors clipped and noisy, others as they are."""
        privacy = self.spec.privacy
        noise = self._noise(round_, self.client, purpose, batch) if privacy.noise_std else None
        return {
            name: protect(tensor, clip_norm=privacy.clip_norm, noise_std=privacy.noise_std, generator=noise)
            for name, tensor in activations.items()
        }

    def _noise(self, *context: object) -> torch.Generator | SecretGenerator:
        """What draws the noise of one batch."""
        if self.spec.privacy.noise_seed == "run":
            return generator(seed_of("noise", self.spec.run.seed, *context))
        return SecretGenerator(self._secret, "noise", *context)
