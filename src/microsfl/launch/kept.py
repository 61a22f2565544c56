"""A process of a role that the launcher had started, here or elsewhere: what is known of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from pathlib import Path
from typing import Any

from ..config import ProcessSettings
from ..errors import InputError, RunFailed
from .forks import Process

READY_S = 120.0
END_S = 8.0  # a server lets open requests finish for 3 s, and a process without a parent ends itself after 5 s
LAST_LINES = 6
COMPLAINT = "microsfl: error: "


class Kept:
    """Its log is a file on this machine, wherever it runs."""

    process: Process

    def __init__(self, role: str, name: str, settings: ProcessSettings, log: Path) -> None:
        self.role, self.name, self.settings, self.log = role, name, settings, log
        self.address: str | None = None
        self.restarts = 0
        self.up_since: float | None = None
        self._was_up = False
        self._ready: Future[str] = Future()

    @property
    def state(self) -> str:
        """starting, up or ended."""
        if self.process.poll() is not None:
            return "ended"
        return "up" if self.up_since is not None else "starting"

    def wait_ready(self) -> None:
        """Wait for the ready line.

        Raises:
            InputError: when the process refuses its settings.
            RunFailed: when it ends before it is ready, or takes too long.
        """
        try:
            what = self._ready.result(READY_S)
        except TookTooLong:
            raise RunFailed(f"{self.name} was not ready after {READY_S:g} s. {self.last_words()}") from None
        if not what:
            self.process.wait()
            raise self._refusal() or self.failure()

    def failure(self) -> RunFailed:
        """The error of a process that should not have ended."""
        return RunFailed(f"{self.name} ended with {self.ending()}. {self.last_words()}")

    def ending(self) -> str:
        """How the process ended, in words."""
        code = self.process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def last_words(self) -> str:
        """The end of the log."""
        lines = [line for line in self.log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        said = "".join(f"\n  {line}" for line in lines[-LAST_LINES:])
        return f"The end of its log, {self.log}:{said}" if said else f"Its log {self.log} is empty."

    def to_json(self) -> dict[str, Any]:
        """Its entry in processes.json."""
        return {
            "role": self.role,
            "name": self.name,
            "pid": self.process.pid,
            "address": self.address,
            "state": self.state,
            "exit_code": self.process.returncode,
            "restarts": self.restarts,
        }

    @property
    def refused(self) -> bool:
        """It ended because its settings are wrong: starting it again would change nothing.

        Settings with which it was up before are right; it may be its port that somebody has taken meanwhile.
        """
        return self.process.returncode == InputError.exit_code and not self._was_up

    def _refusal(self) -> InputError | None:
        """What the process has against its settings, when that is why it ended."""
        said = self.log.read_text("utf-8", errors="replace").splitlines()[-1:]
        if not self.refused or not said or not said[0].startswith(COMPLAINT):
            return None
        return InputError(f"{self.name}: {said[0].removeprefix(COMPLAINT)}")

    def _is_up(self, what: str) -> None:
        self.address = what.removeprefix("at ") if what.startswith("at ") else None
        self.up_since = time.monotonic()
        self._was_up = True


def end(children: Iterable[Kept]) -> None:
    """Terminate, wait, and kill what is left."""
    living = terminate(children)
    deadline = time.monotonic() + END_S
    for child in living:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def kill(children: Iterable[Kept]) -> None:
    """End those that live without asking."""
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()


def terminate(children: Iterable[Kept]) -> list[Kept]:
    """Ask those that live to end; these."""
    living = [child for child in children if child.process.poll() is None]
    for child in living:
        child.process.terminate()
    return living
