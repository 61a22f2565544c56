"""As many split servers as the backlog needs, between a minimum and a maximum."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ...errors import MicrosflError
from ..repeated import Repeated

EVERY_S = 2.0


class Autoscaler(Repeated):
    """A thread that asks how many there should be, and sees to it.

    Args:
        wanted: how many replicas the coordinator recommends.
        scale: makes it so many; returns at once.
    """

    def __init__(self, wanted: Callable[[], int], scale: Callable[[int], None]) -> None:
        super().__init__("autoscaler", EVERY_S)
        self._wanted, self._scale = wanted, scale

    def _look(self) -> None:
        with suppress(MicrosflError):  # the coordinator is being started again: asked again
            self._scale(self._wanted())
