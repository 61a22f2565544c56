"""Models that are not trained for their own sake, which runs name by their import path."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.autograd import Function

FORWARD_S = 0.020
BACKWARD_S = 0.030


class Model(nn.Sequential):
    """Stages front | body | tail."""

    default_cut: ClassVar[tuple[str, str]] = ("front", "body")


class RemoteDevice(nn.Linear):
    """A linear layer on a device that takes its time, during which this machine's cores are free."""

    samplewise = True

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(FORWARD_S)
        outputs: Tensor = Waits.apply(super().forward(x))  # type: ignore[no-untyped-call]
        return outputs


class Waits(Function):
    """The identity; its backward waits."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        time.sleep(BACKWARD_S)
        return gradient


def waiting(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """16 features cross the cut; the body takes 20 ms for the forward of a unit and 30 ms for its backward."""
    (features,) = input_shape
    return Model(OrderedDict(front=nn.Linear(features, 16), body=RemoteDevice(16, 16), tail=nn.Linear(16, classes)))


def narrow(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A body of two parameters that takes tensors [samples, 1, any length] and leaves their shape as it is."""
    (features,) = input_shape
    tail = nn.Sequential(nn.Flatten(), nn.Linear(features, classes))
    return Model(OrderedDict(front=nn.Unflatten(1, (1, features)), body=nn.Conv1d(1, 1, 1), tail=tail))
