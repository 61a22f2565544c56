"""The launcher's child processes together: started, written down, started again when they end, and ended."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..config import ProcessSettings
from ..store.s3 import area_environment
from .child import Child
from .forks import Forks
from .kept import Kept, end, kill, terminate
from .process_folder import ProcessFolder
from .supervisor import Supervisor

Json = dict[str, Any]


class Processes:
    """The children, in the order in which they were started.

    Args:
        restarts: how often each is started again; None: always.
        forks: where those that compute are forked; default: one of its own, from `begin` to `close`.
    """

    def __init__(self, restarts: int | None, forks: Forks | None = None) -> None:
        self.children: list[Kept] = []
        self._ours: list[Child] = []
        self.supervisor = Supervisor(self._ours, restarts, self.record)
        self.forks = forks
        self._folder: ProcessFolder | None = None
        self._own = ExitStack()
        self._recorded: list[Json] = []
        self._recording = threading.Lock()

    def begin(self, folder: ProcessFolder) -> None:
        """From now on, processes can be started; what they leave goes to `folder`."""
        self._folder = folder
        if self.forks is None:
            self.forks = self._own.enter_context(Forks())

    def spawn(self, role: str, name: str, settings: ProcessSettings, area: str | None = None) -> Kept:
        """Start a process. Only those of an area get the credentials of its store, and of no other's."""
        child = Child(role, name, settings, self._log(name), secrets_of(area), self.forks)
        self._ours.append(child)
        self.children.append(child)
        self.record()
        return child

    def _log(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder.logs / f"{name}.log"

    def supervise(self) -> None:
        """Wait until all are ready, and start again from now on what ends.

        Raises:
            InputError: when one refuses its settings.
            RunFailed: when one ends before it is ready, or takes too long.
        """
        for child in self.children:
            child.wait_ready()
        self.record()
        self.supervisor.start()

    def record(self) -> None:
        """Keep processes.json current; the supervisor's thread does so too."""
        with self._recording:
            now = [child.to_json() for child in self.children]
            if now != self._recorded and self._folder is not None:
                self._folder.write_processes(now)
                self._recorded = now

    def finish(self) -> None:
        """Ask all to end, without waiting for it."""
        self.supervisor.stop()
        terminate(self.children)

    def close(self) -> None:
        """End all. Whoever is interrupted while waiting for that kills what is left, and leaves no process behind."""
        try:
            self.supervisor.stop()
            end(self.children)
        except BaseException:
            self.supervisor.stop()
            kill(self.children)
            raise
        finally:
            self._own.close()
            self.record()


def secrets_of(area: str | None) -> dict[str, str]:
    """The variables of this environment that are the credentials of an area of the store; of none: none."""
    environment = {} if area is None else area_environment(area, os.environ)
    return {name: value for name, value in environment.items() if name.startswith("AWS_")}
