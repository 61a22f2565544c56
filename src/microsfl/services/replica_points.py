"""The metrics that split server and fed server have in common, from what they keep anyhow."""

from __future__ import annotations

from collections.abc import Iterator

from ..telemetry.exposition import Point, build_point
from ..wire.timing import PHASES
from .reduces import Reduces
from .stopwatch import Stopwatch


def points(role: str, stopwatch: Stopwatch) -> Iterator[Point]:
    yield build_point(role)
    yield "microsfl_computed_requests_total", {}, stopwatch.requests
    for phase, seconds in zip(PHASES, stopwatch.totals, strict=True):
        yield "microsfl_phase_seconds_total", {"phase": phase}, seconds


def sync_points(area: str, stopwatch: Stopwatch, reduces: Reduces) -> Iterator[Point]:
    """What it did in its area of the store."""
    yield "microsfl_commits_total", {}, reduces.count
    yield "microsfl_reduce_seconds", {}, reduces.seconds
    for verb, done in stopwatch.store.tally.by_verb().items():
        labels = {"area": area, "verb": verb}
        yield "microsfl_store_operations_total", labels, done.operations
        yield "microsfl_store_seconds_total", labels, done.seconds
        yield "microsfl_store_retries_total", labels, done.retries
        yield "microsfl_store_errors_total", labels, done.errors
