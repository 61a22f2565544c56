"""Small models for the tests, each with one property that a cut has to get right."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def plain(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Linear layers only."""
    return _with_cut(
        nn.Sequential(nn.Linear(input_shape[0], 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, classes))
    )


def dropout(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Random numbers in front, body and tail."""
    model = nn.Sequential(
        nn.Sequential(nn.Linear(input_shape[0], 8), nn.Dropout(0.3)),
        nn.Dropout(0.5),
        nn.Linear(8, 8),
        nn.ReLU(),
        nn.Sequential(nn.Dropout(0.2), nn.Linear(8, classes)),
    )
    return _with_cut(model)


def batchnorm(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Layers that mix the samples of a batch and keep buffers, on both sides of both cuts."""
    model = nn.Sequential(
        nn.Sequential(nn.Linear(input_shape[0], 5), nn.BatchNorm1d(5)),
        nn.BatchNorm1d(5),
        nn.Linear(5, 4),
        nn.BatchNorm1d(4),
        nn.Linear(4, classes),
    )
    return _with_cut(model)


class _Masking(nn.Module):
    """Hands on its input and a mask that takes no gradient."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), x[:, :5] > 0


class _Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(mask, self.linear(x), x), mask


class _Unmasking(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(5, classes)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.linear(x * mask)


class _MaskedModel(nn.Module):
    default_cut = ("masking", "masked")

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.a, self.b, self.c = _Masking(features), _Masked(), _Unmasking(classes)

    def stages(self) -> dict[str, nn.Module]:
        return {"masking": self.a, "masked": self.b, "unmasking": self.c}


def masked(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A boolean mask crosses both cuts beside the activations."""
    return _MaskedModel(input_shape[0], classes)


def sixteen(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A body of 16 x 16 weights whose gradient overflows when asked to."""
    model = nn.Sequential(
        nn.Linear(input_shape[0], 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, classes)
    )
    return _with_cut(model)


def _with_cut(model: nn.Sequential) -> nn.Sequential:
    model.default_cut = ("0", "3")  # type: ignore[assignment]
    return model


class _Repeated(nn.Module):
    """Much to compute with few weights."""

    samplewise = True

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(128, 128)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(20):
            x = torch.tanh(self.linear(x))
        return x


def repeated(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A body that takes milliseconds, and is small."""
    return _with_cut(
        nn.Sequential(nn.Linear(input_shape[0], 128), nn.ReLU(), _Repeated(), nn.Tanh(), nn.Linear(128, classes))
    )
