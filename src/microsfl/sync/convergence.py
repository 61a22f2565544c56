"""A version that is to be is looked at before it is written: it is no use once a value of it is not finite."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ..errors import NotFinite
from ..wire.tensors import check_finite


def check_next(whose: str, tensors: Iterable[tuple[str, Tensor]], version: int, setting: str) -> None:
    """Raises NotFinite, naming the tensor and the setting to lower, when a value of the next version is not finite."""
    for name, tensor in tensors:
        try:
            check_finite(name, tensor)
        except NotFinite:
            raise NotFinite(
                f"The {whose} '{name}' would not be finite in version {version}: training diverges. A smaller "
                f"{setting} may help."
            ) from None
