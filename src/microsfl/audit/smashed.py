"""The smashed data of a front, as it leaves the client."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.privacy import protect
from ..core.randomness import generator

Crossing = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Protection:
    """clip_norm: largest L2 norm of a sample's smashed data. noise_std: of the noise added to it. 0: none."""

    clip_norm: float = 0.0
    noise_std: float = 0.0

    def apply(self, crossing: Crossing, generator: torch.Generator) -> Crossing:
        """What the front returned, protected tensor by tensor as a client does; what has no fractions (a mask) stays.

        generator: on the CPU; draws the noise.
        """
        if isinstance(crossing, tuple):
            return tuple(self.one(tensor, generator) for tensor in crossing)
        return self.one(crossing, generator)

    def one(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        """`apply` for one of the tensors."""
        return protect(tensor, clip_norm=self.clip_norm, noise_std=self.noise_std, generator=generator)


class View:
    """What an attacker sees of inputs: called with them [n, *input_shape], their smashed data as it travels, with new
    noise at each call. In evaluation mode and without a graph; see `as_one` for the shape."""

    def __init__(self, front: nn.Module, protection: Protection, seed: int) -> None:
        self.front, self.protection, self.generator = front, protection, generator(seed)

    def __call__(self, x: Tensor) -> Tensor:
        self.front.eval()
        with torch.no_grad():
            return as_one(self.protection.apply(self.front(x), self.generator))


def as_one(crossing: Crossing) -> Tensor:
    """What crosses the cut as a single tensor: the front's own when it is one, else [n, features] of them all."""
    if not isinstance(crossing, tuple):
        return crossing
    if len(crossing) == 1:
        return crossing[0]
    return torch.cat([tensor.flatten(1).float() for tensor in crossing], dim=1)
