"""Naive versions of what the core computes: element by element, in Python's own floats, as the papers write it."""

from __future__ import annotations

import math
import statistics
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field


def mean(values: Sequence[float], samples: Sequence[int]) -> float:
    """Each value as often as its client has samples."""
    return statistics.fmean(value for value, count in zip(values, samples, strict=True) for _ in range(count))


def trimmed_mean(values: Sequence[float], trim: float) -> float:
    """Take out the smallest and the largest, floor(trim · n) times."""
    left = list(values)
    for _ in range(math.floor(trim * len(values))):
        left.remove(min(left))
        left.remove(max(left))
    return statistics.fmean(left)


def float32(value: float) -> float:
    """The nearest float32."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


@dataclass
class ServerOptimizer:
    """One coordinate under a server optimizer, living from round to round, with its moments in float32."""

    name: str
    lr: float
    beta1: float
    beta2: float
    tau: float
    m: float = 0.0
    v: float = field(init=False)

    def __post_init__(self) -> None:
        self.v = self.tau**2

    def step(self, before: float, average: float) -> float:
        after = self._step(before, average)
        self.m, self.v = float32(self.m), float32(self.v)
        return float32(after)

    def _step(self, before: float, average: float) -> float:
        delta = average - before
        if self.name == "FedAvgM":
            self.m = self.beta1 * self.m + delta
            return before + self.lr * self.m
        self.m = self.beta1 * self.m + (1 - self.beta1) * delta
        if self.name == "FedAdam":
            self.v = self.beta2 * self.v + (1 - self.beta2) * delta**2
        else:
            direction = (self.v > delta**2) - (self.v < delta**2)
            self.v = self.v - (1 - self.beta2) * delta**2 * direction
        return before + self.lr * self.m / (math.sqrt(self.v) + self.tau)
