"""Which device computes, and what it loads first."""

from __future__ import annotations

from importlib import import_module

import torch

from .errors import InvalidSetting


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
    import_module("torch._dynamo")
