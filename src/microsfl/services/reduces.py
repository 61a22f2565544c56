"""The commits that a replica makes: how many, and how long each took."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter, time_ns
from typing import Any

from ..core.unit import UnitKey
from ..process import event
from ..sync.commits import Chain, Commit
from ..sync.outliers import of_round
from ..telemetry.histogram import REDUCE_BOUNDS, Histogram
from ..telemetry.traces import Traces


def told(run: str, area: str, chain: Chain, closing: Commit) -> list[dict[str, Any]]:
    """The outliers of a round that was closed, for the coordinator; and for the log."""
    found = [vars(one) for one in of_round(chain, closing)]
    for one in found:
        event("outlier", logging.WARNING, run=run, round=closing.round, area=area, **one)
    return found


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
