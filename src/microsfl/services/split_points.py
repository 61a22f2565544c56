"""The metrics that a split server has besides those of every replica."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..config import MB
from ..telemetry.exposition import Point
from .replica_points import sync_points
from .stopwatch import Stopwatch

if TYPE_CHECKING:
    from .split_server import SplitServer


def points(server: SplitServer, stopwatch: Stopwatch) -> Iterator[Point]:
    counts, settings = server.counts, server.settings
    yield "microsfl_units_total", {}, counts["units"]
    yield "microsfl_graph_cache_hits_total", {}, counts["graph_hits"]
    yield "microsfl_graph_cache_misses_total", {}, counts["recomputed"]
    yield "microsfl_recomputations_total", {}, counts["computed_again"]
    yield "microsfl_contributions_total", {}, counts["contributions"]
    in_memory = {
        "graphs": (server.graphs.currsize, settings.graph_cache_mb),
        "versions": (server.versions.currsize, settings.weights_cache_mb),
        "write_behind": (server.writer.waiting_bytes, settings.write_behind_mb),
    }
    for cache, (size, limit_mb) in in_memory.items():
        yield "microsfl_cache_bytes", {"cache": cache}, size
        yield "microsfl_cache_limit_bytes", {"cache": cache}, limit_mb * MB
    yield from sync_points("body", stopwatch, server.reduces)
