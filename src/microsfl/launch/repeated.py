"""A thread that does one thing again and again until it is stopped."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Repeated(ABC):
    """Does `_look` every so many seconds, from `start` to `stop`. name: of the thread."""

    def __init__(self, name: str, every_s: float) -> None:
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """When this returns, nothing is done any more, and nothing is under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._look()

    @abstractmethod
    def _look(self) -> None: ...
