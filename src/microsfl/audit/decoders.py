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

    It begins at the mean input and knows the range of the values, as everyone does who has data of the same kind.
    Where both shapes are those of images, it is a convolutional network that doubles the sides until they are large
    enough; otherwise a linear map and beside it a network of three linear layers.

    Args:
        smashed_shape: without the samples' dimension. like: inputs of the attacker's own, [m, *input_shape].
    """

    mean: Tensor

    def __init__(self, smashed_shape: tuple[int, ...], like: Tensor) -> None:
        super().__init__()
        shape = tuple(like.shape[1:])
        self.net = (
            _images(smashed_shape, shape)
            if len(smashed_shape) == len(shape) == 3
            else _Vectors(math.prod(smashed_shape), math.prod(shape))
        )
        self.register_buffer("mean", like.mean(dim=0))
        self.low, self.high = float(like.min()), float(like.max())

    def forward(self, smashed: Tensor) -> Tensor:
        """Without regard to the range: a loss on this has a gradient everywhere."""
        raw: Tensor = self.net(smashed)
        return self.mean + raw.reshape(len(raw), *self.mean.shape)

    def within_range(self, smashed: Tensor) -> Tensor:
        """The same, bounded to the range of the inputs."""
        bounded: Tensor = self(smashed).clamp(self.low, self.high)
        return bounded

    def fit_linear(self, smashed: Tensor, x: Tensor, ridge: float) -> bool:
        """Begin with the best linear reconstruction instead, by ridge regression of x [n, *input_shape] on smashed
        [n, *smashed_shape]; False where there is no linear map in this network, or it would take too long."""
        if not isinstance(self.net, _Vectors) or self.net.linear.in_features > LINEAR_LIMIT:
            return False
        self.net.fit_linear(smashed, (x - self.mean).flatten(1), ridge)
        return True


class _Vectors(nn.Module):
    """[n, …] with `features` numbers a sample -> [n, outputs]."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        # Not affine: only to take the smashed data at any scale.
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.linear = _from_zero(nn.Linear(features, outputs))
        self.deep = nn.Sequential(
            nn.Linear(features, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            _from_zero(nn.Linear(HIDDEN, outputs)),
        )

    def forward(self, smashed: Tensor) -> Tensor:
        z = self.norm(smashed.flatten(1))
        found: Tensor = self.linear(z) + self.deep(z)
        return found

    @torch.no_grad()
    def fit_linear(self, smashed: Tensor, wanted: Tensor, ridge: float) -> None:
        """Set the linear map to the ridge regression of `wanted` [n, outputs], which has no mean, on `smashed`."""
        z = smashed.flatten(1)
        self.norm.running_mean, self.norm.running_var = z.mean(dim=0), z.var(dim=0)
        z = self.norm.eval()(z).double()
        penalty = ridge * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        self.linear.weight.copy_(torch.linalg.solve(z.T @ z + penalty, z.T @ wanted.double()).T)


def _images(smashed_shape: tuple[int, ...], input_shape: tuple[int, ...]) -> nn.Module:
    ratio = max(wanted / given for wanted, given in zip(input_shape[1:], smashed_shape[1:], strict=True))
    doublings = math.ceil(math.log2(max(1.0, ratio)))
    layers: list[nn.Module] = [
        nn.BatchNorm2d(smashed_shape[0], affine=False),
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
