"""The commits that a replica makes: how many, and how long each took."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, time_ns

from ..core.unit import UnitKey
from ..sync.commits import Commit
from ..telemetry.histogram import REDUCE_BOUNDS, Histogram
from ..telemetry.traces import Traces


class Reduces:
    """For one thread: `begin` before whatever may commit, `made` after each commit."""

    def __init__(self, traces: Traces | None = None) -> None:
        self.traces = traces
        self.count = 0
        self.seconds = Histogram(REDUCE_BOUNDS)
        self.begin()

    def begin(self) -> None:
        self._since = perf_counter()

    def made(self, run: str) -> Callable[[Commit], None]:
        """What is told of each commit of a run."""

        def note(commit: Commit) -> None:
            if not commit.version:
                return  # it is what the run begins with
            took = perf_counter() - self._since
            self.count += 1
            self.seconds.observe(took)
            if self.traces is not None:
                units = [UnitKey(run, commit.round, one.client, one.unit) for one in commit.contributions]
                self.traces.committed(run, commit.version, units, time_ns() - round(took * 1e9))
            self.begin()

        return note
