"""Averaging: contributions to one body gradient, client-side updates to one set of weights, and the body's step.

Sums are kept in float64 and streamed, one contribution at a time: the rounding of a mean over thousands of float32
files stays below that of one float32 addition, and a mean over a single one is exact.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InvalidSetting, TensorMismatch
from .codec import Scalars, make_optimizer, pack_optimizer, unpack_optimizer
from .step import Tensors


class WeightedMean:
    """Σ wᵢ·tᵢ ÷ Σ wᵢ over sets of named tensors, in the order in which they come.

    Integer and bool tensors (BatchNorm's batch counter, say) are averaged likewise and rounded to the nearest.
    """

    def __init__(self) -> None:
        self.sums: Tensors = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self.weight = 0.0

    def add(self, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Take in one set; a name that other sets lack counts as zero there.

        Raises:
            TensorMismatch: when a tensor has another shape than the same name had before.
        """
        self.weight += weight
        for name, tensor in tensors.items():
            term = tensor.detach().to("cpu", torch.float64) * weight
            if name not in self.sums:
                self.sums[name], self.dtypes[name] = term, tensor.dtype
            elif self.sums[name].shape != term.shape:
                raise TensorMismatch(f"'{name}' came as {list(term.shape)} and as {list(self.sums[name].shape)}.")
            else:
                self.sums[name] += term

    def result(self, divisor: float | None = None) -> Tensors:
        """The mean, or the sum over `divisor`, in each tensor's first dtype."""
        over = self.weight if divisor is None else divisor
        return {name: _cast(total / over, self.dtypes[name]) for name, total in self.sums.items()}


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return (tensor if dtype.is_floating_point else tensor.round()).to(dtype)


class Reduction:
    """Body contributions, reduced to one gradient.

    A contribution holds the *sum* of its batches' gradients. With b batches of n samples each:
    mean-batches: Σ g ÷ Σ b. mean-samples: Σ n·g ÷ Σ n·b. sum: Σ g.
    """

    def __init__(self, kind: str) -> None:
        if kind not in ("mean-batches", "mean-samples", "sum"):
            raise InvalidSetting(f"strategy.reduce = '{kind}' is not mean-batches, mean-samples or sum.")
        self.kind = kind
        self.gradients = WeightedMean()
        self.buffers = WeightedMean()
        self.divisor = 0.0

    def add(
        self, gradients: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *, batches: int, samples: int
    ) -> None:
        """Take in one contribution of `batches` batches and `samples` samples in all."""
        scale = samples / batches if self.kind == "mean-samples" else 1.0
        self.gradients.add(gradients, scale)
        self.buffers.add(buffers, float(batches))
        self.divisor += scale * batches

    def gradient(self) -> Tensors:
        """The reduced gradient by parameter name; a parameter that no contribution has is absent."""
        return self.gradients.result(1.0 if self.kind == "sum" else self.divisor)


@dataclass(frozen=True)
class OptimizerRule:
    """Which optimizer, with which options."""

    name: str
    options: Mapping[str, object]


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


def next_state(state: BodyState, reduction: Reduction, rule: OptimizerRule) -> BodyState:
    """The version after one optimizer step on the reduced gradient; `state` is left as it was.

    Raises:
        TensorMismatch: when the gradient has a name or shape that the body lacks.
    """
    body = copy.deepcopy(state.body)
    parameters = dict(body.named_parameters())
    for name, gradient in reduction.gradient().items():
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


def _set_buffers(body: nn.Module, values: Tensors) -> None:
    buffers = dict(body.named_buffers())
    with torch.no_grad():
        for name, value in values.items():
            if name not in buffers or buffers[name].shape != value.shape:
                raise TensorMismatch(f"A contribution has a buffer '{name}' {list(value.shape)} that the body lacks.")
            buffers[name].copy_(value)


def fedavg(updates: Iterable[tuple[Tensors, int]]) -> Tensors:
    """Client-side weights averaged by samples (McMahan et al. 2017, arXiv:1602.05629, alg. 1).

    Args:
        updates: (named tensors, samples that the client trained on), in an order that is always the same.
    """
    mean = WeightedMean()
    for tensors, samples in updates:
        mean.add(tensors, float(samples))
    return mean.result()
