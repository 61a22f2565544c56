"""The data of a calibration: a few samples of the data set that is planned for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset

from ..core.partition import IntArray
from ..zoo.datasets import Samples, load_data

NAME = "microsfl.capacity.probe_data:few"


@dataclass(frozen=True)
class Few:
    """dataset, path, client: as `load_data` takes them. train, test: how many samples of each split."""

    dataset: str
    path: str | None
    client: str | None
    train: int
    test: int

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), "utf-8")


def few(path: str) -> tuple[Samples, Samples]:
    """The data set that the file at `path` describes; where it has too few samples, they come again."""
    wanted = Few(**json.loads(Path(path).read_text("utf-8")))
    data = load_data(wanted.dataset, wanted.path, wanted.client)
    return _taken(data.train, wanted.train), _taken(data.test, wanted.test)


def some(samples: Samples, count: int) -> IntArray:
    """The indices of so many samples, from the first on."""
    return np.arange(count, dtype=np.int64) % len(samples)


def _taken(samples: Samples, count: int) -> Samples:
    indices = some(samples, count)
    if isinstance(samples, TensorDataset):  # which clients read without a loop
        return TensorDataset(*samples[torch.from_numpy(indices)])
    return Subset(samples, indices.tolist())  # type: ignore[arg-type]
