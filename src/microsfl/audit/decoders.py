"""Networks that turn smashed data back into inputs."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

HIDDEN = 512
CHANNELS = 64
LINEAR_LIMIT = 4096  # features; with more, a closed solution takes too long
RIDGES = (1e-6, 1e-4, 1e-2, 1.0)

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class Decoder(nn.Module):
    """Smashed data [n, *smashed_shape] -> inputs [n, *input_shape].

    The mean input, plus a linear map, plus a network that begins at nothing: where both shapes are those of images, a
    convolutional one that doubles the sides until they are large enough, otherwise three linear layers. It knows the
    range of the values, as everyone does who has data of the same kind.

    Args:
        smashed_shape: without the samples' dimension. like: inputs of the attacker's own, [m, *input_shape].
    """

    mean: Tensor

    def __init__(self, smashed_shape: tuple[int, ...], like: Tensor) -> None:
        super().__init__()
        self.smashed_shape, shape = smashed_shape, tuple(like.shape[1:])
        features, values = math.prod(smashed_shape), math.prod(shape)
        # Not affine: only to take the smashed data at any scale.
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.linear = _from_zero(nn.Linear(features, values)) if features <= LINEAR_LIMIT else None
        images = len(smashed_shape) == len(shape) == 3
        self.deep = _images(smashed_shape, shape) if images else _vectors(features, values)
        self.register_buffer("mean", like.mean(dim=0))
        self.low, self.high = float(like.min()), float(like.max())

    def forward(self, smashed: Tensor) -> Tensor:
        """Without regard to the range: a loss on this has a gradient everywhere."""
        z = self.norm(smashed.flatten(1))
        raw: Tensor = self.deep(z.reshape(-1, *self.smashed_shape)).flatten(1)
        if self.linear is not None:
            raw = raw + self.linear(z)
        return self.mean + raw.reshape(-1, *self.mean.shape)

    def within_range(self, smashed: Tensor) -> Tensor:
        """The same, bounded to the range of the inputs."""
        bounded: Tensor = self(smashed).clamp(self.low, self.high)
        return bounded

    @torch.no_grad()
    def fit_linear(self, smashed: Tensor, x: Tensor, ridge: float) -> None:
        """Set the linear map to the ridge regression of x [n, *input_shape] on smashed [n, *smashed_shape]; nothing
        where there is none, as there are too many features.

        ridge: the penalty, as a part of the features' variance.
        """
        if self.linear is None:
            return
        z, wanted = smashed.flatten(1), (x - self.mean).flatten(1).double()
        self.norm.running_mean, self.norm.running_var = z.mean(dim=0), z.var(dim=0)
        z = self.norm.eval()(z).double()
        penalty = ridge * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        self.linear.weight.copy_(torch.linalg.solve(z.T @ z + penalty, z.T @ wanted).T)


def _vectors(features: int, values: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        _from_zero(nn.Linear(HIDDEN, values)),
    )


def _images(smashed_shape: tuple[int, ...], input_shape: tuple[int, ...]) -> nn.Module:
    ratio = max(wanted / given for wanted, given in zip(input_shape[1:], smashed_shape[1:], strict=True))
    doublings = math.ceil(math.log2(max(1.0, ratio)))
    layers: list[nn.Module] = [
        nn.Conv2d(smashed_shape[0], CHANNELS, 3, padding=1),
        nn.ReLU(),
    ]
    for _ in range(doublings):
        layers += [nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, stride=2, padding=1), nn.ReLU()]
    if [side * 2**doublings for side in smashed_shape[1:]] != list(input_shape[1:]):
        layers.append(nn.Upsample(size=input_shape[1:]))
    layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, _from_zero(nn.Conv2d(CHANNELS, input_shape[0], 3, padding=1)))


def _from_zero(layer: Layer) -> Layer:
    with torch.no_grad():
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    return layer
