"""Optimizer state as plain tensors and numbers, so that it can be a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidSetting

Scalars = dict[str, Any]


def make_optimizer(name: str, parameters: Iterable[nn.Parameter], options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """A torch.optim optimizer by class name.

    Raises:
        InvalidSetting: when the class does not take one of the options.
    """
    try:
        return getattr(torch.optim, name)(list(parameters), **options)  # type: ignore[no-any-return]
    except (
        TypeError,
        ValueError,
        IndexError,
        RuntimeError,
        AssertionError,
    ) as error:  # whatever torch checks them with
        shown = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        raise InvalidSetting(f"torch.optim.{name} does not take these options ({shown}): {error}") from None


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Scalars]:
    """(tensors, scalars) of the optimizer's state, both keyed `<parameter index>.<state name>`.

    Learning rate and the like are no state: they come from the run's specification.
    """
    tensors: dict[str, Tensor] = {}
    scalars: Scalars = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            (tensors if isinstance(value, Tensor) else scalars)[f"{index}.{name}"] = value
    return tensors, scalars


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], scalars: Scalars) -> None:
    """Give a fresh optimizer the state that `pack_optimizer` took; its parameters must be in the same order."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *scalars.items()):
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value.clone() if isinstance(value, Tensor) else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
