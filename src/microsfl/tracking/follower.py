"""Follows a run for its trackers: none of them can end it, however it fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import click

from ..spec import RunSpec
from .rows import Figures, Json, client_figures, round_figures, without_secrets

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


class Follower:
    """Hands each round that is over to all trackers, once."""

    def __init__(self, trackers: Sequence[Patient]) -> None:
        self.trackers = trackers
        self.rounds = 0
        self.began = False

    def follow(self, history: Sequence[Json], metrics: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """history: of the rounds that are over. metrics: the clients' rows, asked for when there is a new round."""
        new = history[self.rounds :]
        if not self.trackers or (self.began and not new):
            return
        rows = metrics() if new else ()
        told = []
        for row in new:
            number = int(row["round"])
            of_round = [one for one in rows if one["round"] == number]
            told.append((number, round_figures(row), client_figures(of_round)))
        self.began, self.rounds = True, len(history)
        for tracker in self.trackers:
            tracker.log(told)

    def end(self, state: State) -> None:
        for tracker in self.trackers if self.began else ():
            tracker.end(state)


@contextmanager
def tracked(names: Sequence[str], spec: RunSpec, folder: Path) -> Iterator[Follower]:
    """A follower of the run in `folder`, which begins once it is given something, and ends with the block."""
    follower = Follower([Patient(name, _open(name, spec, folder.resolve())) for name in dict.fromkeys(names)])
    try:
        yield follower
    except BaseException as error:
        follower.end("failed" if isinstance(error, Exception) else "interrupted")
        raise
    follower.end("finished")


def _open(name: str, spec: RunSpec, folder: Path) -> Tracker:
    if name == "tensorboard":
        from .tensorboard import TensorBoard

        return TensorBoard(spec, folder)
    from .mlflow import Mlflow

    return Mlflow(spec, folder)
