"""Optimizers of the fed server: a step on the average of the clients' updates instead of the average itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidSetting, TensorMismatch
from .step import Tensors


@dataclass(frozen=True)
class ServerOptimizer:
    """Which one, and its settings. `name`: none, FedAvgM, FedAdam or FedYogi; `beta1` is FedAvgM's momentum too."""

    name: str = "none"
    lr: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def step(
        self, before: Mapping[str, Tensor], average: Tensors, state: Mapping[str, Tensor], trained: Collection[str]
    ) -> tuple[Tensors, Tensors]:
        """(weights, state) after a round; nothing that was given is changed.

        With Δ = average - before, element by element, and m = 0 and v = τ² before the first round:

            FedAvgM (Hsu et al. 2019, arXiv:1909.06335):       m ← β₁·m + Δ             w ← before + η·m
            FedAdam (Reddi et al. 2021, arXiv:2003.00295,      m ← β₁·m + (1 - β₁)·Δ    w ← before + η·m / (√v + τ)
            alg. 2):                                           v ← β₂·v + (1 - β₂)·Δ²
            FedYogi (there, too), with FedAdam's m and w:      v ← v - (1 - β₂)·Δ²·sign(v - Δ²)

        A step is computed in float64 and rounded once, the state to float32.

        Args:
            before: weights of the round before. average: the clients' average, of the same names and shapes.
            state: what the round before returned, float32 tensors m.<name> and v.<name>; empty in the first round.
            trained: names of parameters. Only those are stepped; BatchNorm's statistics and all integers take the
                average, as they have no gradient.

        Raises:
            InvalidSetting: for an optimizer that does not exist.
            TensorMismatch: when the average or the state does not fit the weights before.
        """
        if self.name == "none":
            return average, {}
        if self.name not in _STEPS:
            raise InvalidSetting(f"strategy.server_optimizer.name = '{self.name}' is not none, {', '.join(_STEPS)}.")
        weights: Tensors = {}
        moments: Tensors = {}
        for name, mean in average.items():
            if name not in before or before[name].shape != mean.shape:
                raise TensorMismatch(f"The average has a '{name}' {list(mean.shape)} that the weights before lack.")
            if name not in trained or not mean.dtype.is_floating_point:
                weights[name] = mean
                continue
            old = before[name].to("cpu", torch.float64)
            own = {key: _moment(state, f"{key}.{name}", old) for key in ("m", "v") if f"{key}.{name}" in state}
            step, new = _STEPS[self.name](self, mean.to("cpu", torch.float64) - old, own)
            weights[name] = (old + step).to(mean.dtype)
            moments |= {f"{key}.{name}": moment.to(torch.float32) for key, moment in new.items()}
        return weights, moments


def _moment(state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    if state[name].shape != like.shape:
        raise TensorMismatch(f"The state has '{name}' {list(state[name].shape)}; the weights are {list(like.shape)}.")
    return state[name].to("cpu", torch.float64)


def _momentum(rule: ServerOptimizer, delta: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
    m = rule.beta1 * state.get("m", torch.zeros_like(delta)) + delta
    return rule.lr * m, {"m": m}


def _adaptive(rule: ServerOptimizer, delta: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
    m = rule.beta1 * state.get("m", torch.zeros_like(delta)) + (1 - rule.beta1) * delta
    v = state.get("v", torch.full_like(delta, rule.tau**2))
    squared = delta**2
    if rule.name == "FedAdam":
        v = rule.beta2 * v + (1 - rule.beta2) * squared
    else:
        v = v - (1 - rule.beta2) * squared * torch.sign(v - squared)
    return rule.lr * m / (v.sqrt() + rule.tau), {"m": m, "v": v}


_Step = Callable[[ServerOptimizer, Tensor, Tensors], tuple[Tensor, Tensors]]
_STEPS: dict[str, _Step] = {"FedAvgM": _momentum, "FedAdam": _adaptive, "FedYogi": _adaptive}
