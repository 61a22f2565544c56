"""A tracker, and the patience with one that is away: none can end a run, however it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

import click

from .rows import Figures, without_secrets

LONGEST_REASON = 300
RETRY_S = 30.0  # after a failure, that the rounds do not wait each time for a server that is away

State = Literal["finished", "failed", "interrupted"]


class Tracker(Protocol):
    """Where a run is written to. Each method may raise whatever it likes; what failed is tried again later."""

    def begin(self) -> None: ...

    def log(self, step: int, figures: Figures, clients: Figures) -> None:
        """A round that is over, again where it was logged before."""

    def end(self, state: State) -> None: ...


class Patient:
    """A tracker that may be slow or away: figures wait for it, in a thread of its own, and the run does not.

    Its first failure is told on standard error.
    """

    def __init__(self, name: str, tracker: Tracker, retry_s: float = RETRY_S) -> None:
        self.name, self.tracker, self.retry_s = name, tracker, retry_s
        self._began = self._told = False
        self._failed_at: float | None = None
        self._waiting: list[tuple[int, Figures, Figures]] = []
        self._thread = ThreadPoolExecutor(1, f"track-{name}")

    def log(self, rounds: Sequence[tuple[int, Figures, Figures]]) -> None:
        self._thread.submit(self._log, tuple(rounds))

    def end(self, state: State) -> None:
        """Waits until everything is written, or given up."""
        self._thread.submit(self._end, state)
        self._thread.shutdown()

    def _log(self, rounds: Sequence[tuple[int, Figures, Figures]]) -> None:
        self._waiting.extend(rounds)
        if self._failed_at is None or time.monotonic() - self._failed_at >= self.retry_s:
            self._attempt(self._catch_up)

    def _end(self, state: State) -> None:
        def last() -> None:
            self._catch_up()
            self.tracker.end(state)

        self._attempt(last)

    def _catch_up(self) -> None:
        if not self._began:
            self.tracker.begin()
            self._began = True
        while self._waiting:
            self.tracker.log(*self._waiting[0])
            del self._waiting[0]

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - of other people's code, over a network
            self._failed_at = time.monotonic()
            if not self._told:
                self._told = True
                why = (str(error).strip().splitlines() or [type(error).__name__])[0]
                click.echo(
                    f"--track {self.name} fails; the run goes on, and what is missing is tried again later: "
                    f"{without_secrets(why)[:LONGEST_REASON]}",
                    err=True,
                )
        else:
            self._failed_at = None
