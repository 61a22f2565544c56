"""One role as a child process: started, listened to for its ready line, and ended in any case."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..config import ProcessSettings
from ..errors import InputError, RunFailed
from .forks import Forks, Job, Process, Unforked, child_environment
from .options import to_flags

READY_S = 120.0
END_S = 8.0  # a server lets open requests finish for 3 s, and a process without a parent ends itself after 5 s
LAST_LINES = 6
COMPLAINT = "microsfl: error: "
# The coordinator is none of them: it imports no torch, which a fork would bring along.
FORKED = ("split-server", "fed-server", "client")
# Variables of the environment that mean the same for whatever process has such a setting.
WATCHING = ("MICROSFL_OTEL_ENDPOINT", "MICROSFL_OTEL_RATIO", "MICROSFL_METRICS_PORT", "MICROSFL_METRICS_HOST")


class Child:
    """`python -m microsfl ROLE FLAGS`, with a log file for all that it has to say.

    `secrets` are variables of its environment alone: the credentials of its area of the store. It is forked by `forks`
    where that is possible, and starts some seconds earlier then.

    It holds the reading end of a pipe as standard input, so that it ends also when this process is killed. It is in
    a process group of its own: a terminal's Ctrl-C reaches this process alone, which then ends its children in order.
    """

    def __init__(
        self,
        role: str,
        name: str,
        settings: ProcessSettings,
        log: Path,
        secrets: Mapping[str, str],
        forks: Forks | None = None,
    ) -> None:
        self.role, self.name, self.settings, self.log = role, name, settings, log
        self._forks = forks if role in FORKED and getattr(settings, "device", "cpu") == "cpu" else None
        watched = {name: os.environ[name] for name in WATCHING if name in os.environ}
        self._environment = {**child_environment(), **watched, **secrets}
        self.address: str | None = None
        self.restarts = 0
        self._was_up = False
        self._start()

    def restart(self) -> None:
        """Start it again, a server on the port that others know."""
        if self.address is not None:
            port = int(self.address.rsplit(":", 1)[1])
            self.settings = self.settings.model_copy(update={"port": port})
        self.restarts += 1
        self._start()

    def _start(self) -> None:
        self.up_since: float | None = None
        self._ready: Future[str] = Future()
        with self.log.open("ab") as file:
            self.process = self._process(file)
        threading.Thread(
            target=self._listen, args=(self.process, self._ready), name=f"{self.name}-output", daemon=True
        ).start()

    def _process(self, log: IO[bytes]) -> Process:
        arguments = [self.role, "--exit-with-parent", *to_flags(self.settings)]
        if self._forks is not None:
            with suppress(Unforked):
                job = Job(self.name, "microsfl.__main__:run", arguments, self._environment)
                return self._forks.start(job, log.fileno())
        return subprocess.Popen(
            [sys.executable, "-m", "microsfl", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=self._environment,
            process_group=0,
        )

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

    def _listen(self, process: Process, ready: Future[str]) -> None:
        """The ready line is for us; whatever else is printed (a user's model may) goes to the log."""
        assert process.stdout is not None
        prefix = f"microsfl {self.role} ready "
        with process.stdout as output, self.log.open("ab", buffering=0) as log:
            for line in output:
                text = line.decode("utf-8", errors="replace").strip()
                if text.startswith(prefix) and not ready.done():
                    self._is_up(text.removeprefix(prefix))
                    ready.set_result(text.removeprefix(prefix))
                else:
                    log.write(line)
        if not ready.done():
            ready.set_result("")

    def _is_up(self, what: str) -> None:
        self.address = what.removeprefix("at ") if what.startswith("at ") else None
        self.up_since = time.monotonic()
        self._was_up = True


def end(children: Iterable[Child]) -> None:
    """Terminate, wait, and kill what is left."""
    living = terminate(children)
    deadline = time.monotonic() + END_S
    for child in living:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def kill(children: Iterable[Child]) -> None:
    """End those that live without asking."""
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()


def terminate(children: Iterable[Child]) -> list[Child]:
    """Ask those that live to end; these."""
    living = [child for child in children if child.process.poll() is None]
    for child in living:
        child.process.terminate()
    return living
