"""One role as a child process: started, listened to for its ready line, and ended with this process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..config import ProcessSettings
from .forks import Forker, Job, Process, Unforked, child_environment
from .kept import Kept
from .options import to_flags

# The coordinator is none of them: it imports no torch, which a fork would bring along.
FORKED = ("split-server", "fed-server", "client")
# Variables of the environment that mean the same for whatever process has such a setting.
WATCHING = ("MICROSFL_OTEL_ENDPOINT", "MICROSFL_OTEL_RATIO", "MICROSFL_METRICS_PORT", "MICROSFL_METRICS_HOST")


class Child(Kept):
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
        forks: Forker | None = None,
    ) -> None:
        super().__init__(role, name, settings, log)
        self._forks = forks if role in FORKED and getattr(settings, "device", "cpu") == "cpu" else None
        watched = {name: os.environ[name] for name in WATCHING if name in os.environ}
        self._environment = {**child_environment(), **watched, **secrets}
        self._start()

    def restart(self) -> None:
        """Start it again, a server on the port that others know."""
        if self.address is not None:
            port = int(self.address.rsplit(":", 1)[1])
            self.settings = self.settings.model_copy(update={"port": port})
        self.restarts += 1
        self._start()

    def _start(self) -> None:
        self.up_since = None
        self._ready = Future()
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
