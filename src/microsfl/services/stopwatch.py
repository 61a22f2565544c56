"""Where the time of a split server or fed server goes: of one request, phase by phase, and of all since it started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

from ..store.timed import Timed
from ..wire.timing import PHASES, Timing


class Stopwatch:
    """What a replica measures its requests with, on the thread that computes.

    Args:
        store: what the service calls while it computes; its seconds are told apart.
        counts: of the service since it started. "graph_hits" and "recomputed" say what became of a backward's graph.
    """

    def __init__(self, store: Timed, counts: Mapping[str, int], clock: Callable[[], float] = perf_counter) -> None:
        self.store, self.counts, self.clock = store, counts, clock
        self.server = ""  # its id
        self.requests = 0
        self.totals = [0.0] * len(PHASES)

    def begin(self, since: float | None = None) -> Measured:
        """Begin with a request that has been there since then, on this clock; default: it has just come."""
        return Measured(self, since)

    def figures(self) -> dict[str, float | int]:
        """Requests that were answered, and the seconds that they were in each phase."""
        seconds = {f"{name}_s": round(value, 6) for name, value in zip(PHASES, self.totals, strict=True)}
        return {"requests": self.requests, **seconds}


class Measured:
    """One request: tell it when the message is decoded, when the answer is computed, and when that is encoded."""

    __slots__ = ("began", "done", "hits", "misses", "queued", "read", "stored", "watch")

    def __init__(self, watch: Stopwatch, since: float | None) -> None:
        self.watch = watch
        self.began = self.read = self.done = watch.clock()
        self.queued = 0.0 if since is None else max(0.0, self.began - since)
        self.stored = watch.store.seconds
        self.hits, self.misses = watch.counts.get("graph_hits"), watch.counts.get("recomputed")

    def decoded(self) -> None:
        self.read = self.watch.clock()

    def computed(self) -> None:
        self.done = self.watch.clock()

    def encoded(self) -> Timing:
        """What it took, which is added to the totals too."""
        watch, totals = self.watch, self.watch.totals
        encode = watch.clock() - self.done
        worked, decode = self.done - self.read, self.read - self.began
        # Several threads that read the store at a time may have taken more seconds than have gone by.
        stored = min(watch.store.seconds - self.stored, worked)
        watch.requests += 1
        totals[0] += self.queued
        totals[1] += decode
        totals[2] += worked - stored
        totals[3] += stored
        totals[4] += encode
        return Timing(self.queued, decode, worked - stored, stored, encode, watch.server, self._graph())

    def _graph(self) -> str:
        counts = self.watch.counts
        if counts.get("graph_hits") != self.hits:
            return "hit"
        return "miss" if counts.get("recomputed") != self.misses else ""
