"""Contributions to one body gradient, and the body's step on it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidSetting, TensorMismatch
from .average import Array, WeightedMean
from .codec import Scalars, make_optimizer, pack_optimizer, unpack_optimizer
from .schedule import Schedule
from .step import Tensors


class Reduction:
    """Body contributions, reduced to one gradient.

    A contribution holds the *sum* of its batches' gradients. With b batches of n samples each:
    mean-batches: Σ g ÷ Σ b. mean-samples: Σ n·g ÷ Σ n·b. sum: Σ g.

    Args:
        discount: a contribution s versions old counts (1 + s) ** -discount. The divisor stays as if all were fresh, as
            in FedBuff (Nguyen et al. 2022, arXiv:2106.06639, alg. 1), which divides by the number of its updates: old
            ones shorten the step, even where all of them are old.
    """

    def __init__(self, kind: str, discount: float = 0.0) -> None:
        if kind not in ("mean-batches", "mean-samples", "sum"):
            raise InvalidSetting(f"strategy.reduce = '{kind}' is not mean-batches, mean-samples or sum.")
        self.kind = kind
        self.discount = discount
        self.gradients = WeightedMean()
        self.buffers = WeightedMean()
        self.divisor = 0.0

    def add(
        self,
        gradients: Mapping[str, Tensor | Array],
        buffers: Mapping[str, Tensor | Array],
        *,
        batches: int,
        samples: int,
        staleness: int = 0,
    ) -> None:
        """Take in one contribution of `batches` batches and `samples` samples in all, `staleness` versions old."""
        scale = samples / batches if self.kind == "mean-samples" else 1.0
        counts = (1.0 + staleness) ** -self.discount  # exactly 1.0 without a discount
        self.gradients.add(gradients, scale * counts)
        self.buffers.add(buffers, batches * counts)  # statistics, not steps: always a mean, of weights that add up
        self.divisor += scale * batches

    def merge(self, other: Reduction) -> None:
        """Take in what `other` did, its sums as one term each; `other` is not to be used any more."""
        self.gradients.merge(other.gradients)
        self.buffers.merge(other.buffers)
        self.divisor += other.divisor

    def is_finite(self) -> bool:
        """False when some sum is not: then what was taken in was not, or was beyond all measure."""
        return self.gradients.is_finite() and self.buffers.is_finite()

    def gradient(self) -> Tensors:
        """The reduced gradient by parameter name; a parameter that no contribution has is absent."""
        return self.gradients.result(1.0 if self.kind == "sum" else self.divisor)


@dataclass(frozen=True)
class OptimizerRule:
    """Which optimizer, with which options."""

    name: str
    options: Mapping[str, Any]

    def scaled(self, factor: float) -> OptimizerRule:
        """The same with `factor` times the learning rate."""
        return replace(self, options={**self.options, "lr": self.options["lr"] * factor})


@dataclass(frozen=True)
class StepRule:
    """How contributions move the body: `Reduction`'s kind and discount, the bound of the norm, and the optimizer."""

    optimizer: OptimizerRule
    schedule: Schedule
    reduce: str = "mean-batches"
    staleness_discount: float = 0.0
    clip_norm: float = 0.0

    def reduction(self) -> Reduction:
        """An empty one."""
        return Reduction(self.reduce, self.staleness_discount)

    def next_state(self, state: BodyState, reduction: Reduction, round_: int) -> BodyState:
        """The state after one step in round `round_`; see `next_state`."""
        return next_state(state, reduction, self.optimizer.scaled(self.schedule.factor(round_)), self.clip_norm)


@dataclass(frozen=True)
class BodyState:
    """A version in memory: the body, and its optimizer's state as tensors and scalars."""

    body: nn.Module
    tensors: Tensors
    scalars: Scalars

    @property
    def size_bytes(self) -> int:
        held = [*self.body.parameters(), *self.body.buffers(), *self.tensors.values()]
        return sum(tensor.nbytes for tensor in held)


def next_state(state: BodyState, reduction: Reduction, rule: OptimizerRule, clip_norm: float = 0.0) -> BodyState:
    """The version after one optimizer step on the reduced gradient; `state` is left as it was.

    Args:
        rule: its learning rate is that of this step; none of it goes into the state.
        clip_norm: see `clipped`.

    Raises:
        TensorMismatch: when the gradient has a name or shape that the body lacks.
    """
    body = copy.deepcopy(state.body)
    parameters = dict(body.named_parameters())
    for name, gradient in clipped(reduction.gradient(), clip_norm).items():
        if name not in parameters or parameters[name].shape != gradient.shape:
            raise TensorMismatch(f"A contribution has a gradient '{name}' {list(gradient.shape)} that the body lacks.")
        parameters[name].grad = gradient.to(parameters[name])
    tensors, scalars = state.tensors, state.scalars
    if parameters:
        optimizer = make_optimizer(rule.name, parameters.values(), rule.options)
        unpack_optimizer(optimizer, tensors, scalars)
        optimizer.step()
        optimizer.zero_grad()
        tensors, scalars = pack_optimizer(optimizer)
    _set_buffers(body, reduction.buffers.result())
    return BodyState(body, tensors, scalars)


def clipped(gradient: Tensors, clip_norm: float) -> Tensors:
    """`gradient`, scaled down where the L2 norm of all its tensors together exceeds `clip_norm`; 0: as it is.

    Pascanu et al. 2013 (arXiv:1211.5063), alg. 1; the norm is taken in float64.
    """
    if not clip_norm:
        return gradient
    norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in gradient.values()))
    if norm <= clip_norm:
        return gradient
    return {name: tensor * (clip_norm / norm) for name, tensor in gradient.items()}


def _set_buffers(body: nn.Module, values: Tensors) -> None:
    buffers = dict(body.named_buffers())
    with torch.no_grad():
        for name, value in values.items():
            if name not in buffers or buffers[name].shape != value.shape:
                raise TensorMismatch(f"A contribution has a buffer '{name}' {list(value.shape)} that the body lacks.")
            buffers[name].copy_(value)
