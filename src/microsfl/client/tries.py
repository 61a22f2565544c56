"""How a process's requests fare: answers, tries that failed, and answers of another server than the first one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from ..telemetry.exposition import Point
from ..telemetry.histogram import Histogram

COORDINATOR, SERVER = "coordinator", "server"


class Tries:
    """For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = {to: Histogram() for to in (COORDINATOR, SERVER)}
        self._failed = dict.fromkeys(self._seconds, 0)
        self._failovers = dict.fromkeys(self._seconds, 0)

    def failed(self, path: str) -> None:
        """A try came to nothing."""
        with self._lock:
            self._failed[_to(path)] += 1

    def answered(self, path: str, seconds: float, *, by_another: bool) -> None:
        """A request has its answer, after `seconds` with all its tries; from another server than the first asked?"""
        with self._lock:
            self._seconds[_to(path)].observe(seconds)
            self._failovers[_to(path)] += by_another

    def points(self) -> Iterator[Point]:
        for to, seconds in self._seconds.items():
            labels = {"to": to}
            yield "microsfl_client_requests_total", labels, sum(seconds.counts)
            yield "microsfl_client_request_seconds", labels, seconds
            yield "microsfl_client_failed_tries_total", labels, self._failed[to]
            yield "microsfl_client_failovers_total", labels, self._failovers[to]


def _to(path: str) -> str:
    return COORDINATOR if path.startswith("/api/") else SERVER
