"""Made-up data sets, which runs name by their import path.

Each has a test set of one sample: evaluation is not what is measured here. Labels can be learned, so that training
behaves as training does.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch.utils.data import TensorDataset

from microsfl.zoo.datasets import Samples, load_data

CLASSES = 10
INKED = 0.2  # share of the values that are not zero, as in MNIST's images

Split = tuple[Samples, Samples]


def mnist_shaped(path: str | None = None) -> Split:
    """60,000 samples of MNIST's shape; MNIST's own where `path` has them."""
    if path is None:
        return made_up(60_000, (1, 28, 28))
    data = load_data("mnist", path)
    return data.train, TensorDataset(*data.test[:1])  # type: ignore[index]


def mnist_shaped_few() -> Split:
    """A fifth of it."""
    return made_up(12_000, (1, 28, 28))


def images() -> Split:
    """Two batches of 64 for each of two clients, 32x32 pixels in three colours."""
    return made_up(256, (3, 32, 32))


def images_few() -> Split:
    """Half of them."""
    return made_up(128, (3, 32, 32))


def made_up(samples: int, shape: tuple[int, ...]) -> Split:
    """As many train samples of that shape, each class with its own pattern of zeros, always the same ones."""
    rng = np.random.Generator(np.random.PCG64(0))
    features = prod(shape)
    patterns = (rng.random((CLASSES, features)) < INKED).astype(np.float32)
    y = np.arange(samples + 1) % CLASSES
    x = torch.from_numpy(rng.random((samples + 1, features), dtype=np.float32) * patterns[y]).view(-1, *shape)
    labels = torch.from_numpy(y)
    return TensorDataset(x[:-1], labels[:-1]), TensorDataset(x[:1], labels[:1])


def vectors() -> Split:
    """Three batches of 8 for each of 16 clients, 16 features."""
    return made_up(16 * 3 * 8, (16,))
