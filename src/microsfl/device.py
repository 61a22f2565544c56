"""Which device computes, and what it loads first."""

from __future__ import annotations

from importlib import import_module

import torch

from .errors import InvalidSetting
from .process import importing


def choose_device(name: str) -> torch.device:
    """The torch device of a `device` setting.

    Raises:
        InvalidSetting: when this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InvalidSetting(f"device = '{name}' is not on this machine; use cpu, or auto for the best there is.")
    return device


def warm_up() -> None:
    """Load what torch otherwise loads with the process's first optimizer (0.65 s), in the middle of the first round."""
    with importing():
        import_module("torch._dynamo")


def use_threads(count: int) -> None:
    """Have the operations of the calling thread use so many threads.

    torch keeps the number for the whole process, but the BLAS library asks OpenMP, which keeps one for each thread and
    begins with the number of cores: a thread that nobody told computes small products on all of them, in turns with
    every other process, and the numbers can differ in the last bit.
    """
    torch.set_num_threads(count)
