"""As many split servers as the backlog needs, between a minimum and a maximum."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ...errors import MicrosflError

EVERY_S = 2.0


class Autoscaler:
    """A thread that asks how many there should be, and sees to it.

    Args:
        wanted: how many replicas the coordinator recommends.
        scale: makes it so many; returns at once.
    """

    def __init__(self, wanted: Callable[[], int], scale: Callable[[int], None]) -> None:
        self._wanted, self._scale = wanted, scale
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="autoscaler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """When this returns, nothing is scaled any more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(EVERY_S):
            try:
                self._scale(self._wanted())
            except MicrosflError:  # the coordinator is being started again: asked again
                continue
