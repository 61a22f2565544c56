"""Actors on this machine fork their processes from the launcher's fork server, which has imported torch already."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

from ..forks import FORK_S, READY_S, Forked, Forks, Job, Unforked, instructed

NAME = "forks"


class ForkDesk:
    """The launcher's side: a socket in a folder that nobody else can open. Each connection becomes a child's line."""

    def __init__(self, forks: Forks, folder: Path) -> None:
        self.path = folder / NAME
        self._forks = forks
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        threading.Thread(target=self._serve, name="fork-desk", daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):  # it wakes the thread
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            with line, suppress(Unforked):  # whoever asked starts the process in the ordinary way
                self._forks.lend(line)


class ForksElsewhere:
    """An actor's side."""

    def __init__(self, path: str) -> None:
        self._path = path

    def start(self, job: Job, stderr: int) -> Forked:
        """See `Forks.start`. Raises Unforked."""
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(self._path)
        except OSError as error:
            line.close()
            raise Unforked(str(error)) from None
        return instructed(line, job, stderr, READY_S + FORK_S)
