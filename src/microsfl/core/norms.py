"""How long gradients and updates are, and what is done with those that are too long."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import NotFinite, OverNorm

Tensors = dict[str, Tensor]

# Above this, squares are no float32 numbers any more, and an optimizer that squares gradients, as Adam does, is lost.
LARGEST = 1e18
# Below this, squares are hardly float32 numbers.
SMALLEST = 1e-15
ROW = 16_384


@dataclass(frozen=True)
class Bound:
    """largest: L2 norm; 0: none but `LARGEST`, which is always refused. clips: scale down what is longer."""

    largest: float = 0.0
    clips: bool = False

    def applied(self, tensors: Mapping[str, Tensor], what: str, over: int = 1) -> tuple[Tensors, float]:
        """The tensors, scaled down where the bound says so, and their norm as they came.

        Clipping is Pascanu et al. 2013 (arXiv:1211.5063), alg. 1.

        Args:
            what: a word for messages. over: the norm is divided by it, as that of a sum over so many batches.

        Raises:
            NotFinite: when a value is not finite.
            OverNorm: when the norm is over `LARGEST`, or over the bound and that refuses.
        """
        found = norm(tensors.values()) / over
        if not math.isfinite(found):
            odd = next((name for name, tensor in tensors.items() if not math.isfinite(norm([tensor]))), "?")
            raise NotFinite(f"The {what} has a NaN or an infinite value in '{odd}'.")
        if found > LARGEST:
            raise OverNorm(f"The {what} has the norm {found:.3g}; with more than {LARGEST:g} nothing can be computed.")
        if not self.largest or found <= self.largest:
            return dict(tensors), found
        if not self.clips:
            raise OverNorm(f"The {what} has the norm {found:.6g}; this run takes at most {self.largest:g}.")
        return {name: tensor * (self.largest / found) for name, tensor in tensors.items()}, found


def norm(tensors: Iterable[Tensor]) -> float:
    """L2 norm of all floating-point tensors together; infinite or NaN only where a value is."""
    return math.hypot(*(_norm(tensor.detach()) for tensor in tensors if tensor.dtype.is_floating_point))


def _norm(tensor: Tensor) -> float:
    # In float32 it takes a fraction of the time, and is right to five digits: of rows that are not too long, and unless
    # squares overflow or vanish.
    if tensor.dtype == torch.float32:
        rest, found = tensor, 0.0
        if tensor.numel() > ROW:
            flat = tensor.flatten()
            rest = flat[len(flat) // ROW * ROW :]
            rows = torch.linalg.vector_norm(flat[: len(flat) - len(rest)].view(-1, ROW), dim=1)
            found = float(torch.linalg.vector_norm(rows, dtype=torch.float64))
        found = math.hypot(found, float(torch.linalg.vector_norm(rest)))
        if SMALLEST < found < math.inf:
            return found
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def difference(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> Tensors:
    """new - old of each floating-point tensor, in float64."""
    return {name: tensor.double() - old[name].double() for name, tensor in new.items() if tensor.is_floating_point()}


def moved(old: Mapping[str, Tensor], by: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Tensors:
    """old + by, in the dtypes of `new`; what `by` lacks is as in `new`."""
    return {name: (old[name].double() + by[name]).to(one.dtype) if name in by else one for name, one in new.items()}
