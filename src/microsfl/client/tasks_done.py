"""What became of a process's tasks, and what those took that are done."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..telemetry.exposition import Point

Outcome = Literal["done", "failed", "abandoned", "broken"]


class TasksDone:
    """For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[tuple[str, Outcome]] = Counter()
        self._seconds: dict[tuple[str, str], float] = {}
        self._sums = dict.fromkeys(("samples", "batches", "bytes_up", "bytes_down"), 0)

    def add(self, kind: str, outcome: Outcome, metrics: Mapping[str, Any] | None = None) -> None:
        """metrics: those that are reported of a task that is done."""
        with self._lock:
            self._outcomes[kind, outcome] += 1
            for name in self._sums.keys() & (metrics or {}).keys():
                self._sums[name] += (metrics or {})[name]
            for phase, seconds in (metrics or {}).get("spent", {}).items():
                if "/" not in phase:  # the others are sums over requests
                    self._seconds[kind, phase] = self._seconds.get((kind, phase), 0.0) + seconds

    def points(self) -> Iterator[Point]:
        with self._lock:
            outcomes, seconds, sums = self._outcomes.copy(), self._seconds.copy(), self._sums.copy()
        for (kind, outcome), count in outcomes.items():
            yield "microsfl_client_tasks_total", {"kind": kind, "outcome": outcome}, count
        for (kind, phase), value in seconds.items():
            yield "microsfl_client_phase_seconds_total", {"kind": kind, "phase": phase}, value
        yield "microsfl_client_samples_total", {}, sums["samples"]
        yield "microsfl_client_batches_total", {}, sums["batches"]
        yield "microsfl_client_sent_bytes_total", {}, sums["bytes_up"]
        yield "microsfl_client_received_bytes_total", {}, sums["bytes_down"]
