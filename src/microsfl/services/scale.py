"""How many split servers there should be, from what waits at those that there are.

Each says with its heartbeat how many seconds requests have spent with it so far (`load.py`). What that grows by in a
second is the mean number of requests there, of which one is computed and the others wait. So many replicas are
recommended that each has `PER_REPLICA` of them: one to compute, and one that is there when that is done.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .roster import SERVER_LEASE_S

PER_REPLICA = 2.0
MOST_REPLICAS = 1000
MEAN_OVER_S = 6.0  # three heartbeats
DOWN_AFTER_S = 30.0  # more replicas are recommended at once, fewer once it has been fewer for so long

WORKED = ("decode_s", "compute_s", "store_s", "encode_s")


@dataclass(frozen=True)
class Need:
    """What there was at a time: requests at all replicas together, and runs that need some."""

    at: float
    load: float
    runs: int

    def replicas(self, per_replica: float) -> int:
        return max(1, math.ceil(self.load / per_replica)) if self.runs else 0


@dataclass(frozen=True)
class Heard:
    at: float
    load_s: float
    worked_s: float


class Scale:
    """runs: how many runs need split servers now. Times are seconds of `clock`."""

    def __init__(self, runs: Callable[[], int], clock: Callable[[], float]) -> None:
        self._runs, self._clock = runs, clock
        self._heard: dict[str, deque[Heard]] = defaultdict(deque)
        self._needs: deque[Need] = deque()

    def heard(self, server: str, info: Mapping[str, Any]) -> None:
        """What a split server says of itself, since it started."""
        try:
            now = Heard(self._clock(), float(info["load_s"]), sum(float(info[name]) for name in WORKED))
        except (KeyError, TypeError, ValueError):  # one of another version
            return
        if not math.isfinite(now.load_s + now.worked_s):
            return
        known = self._heard[server]
        if known and (now.load_s < known[-1].load_s or now.at <= known[-1].at):
            known.clear()  # it has started anew
        known.append(now)
        while len(known) > 2 and known[1].at <= now.at - MEAN_OVER_S:
            known.popleft()
        self._note()

    @property
    def load(self) -> float:
        """Requests at all replicas together, on average over the last seconds."""
        return sum(self._rates("load_s"))

    @property
    def busy(self) -> float:
        """Share of the time in which a replica works, on average over replicas and the last seconds."""
        rates = self._rates("worked_s")
        return sum(rates) / len(rates) if rates else 0.0

    @property
    def runs(self) -> int:
        """Those that need split servers now."""
        return self._runs()

    def replicas(self, least: int, most: int, per_replica: float = PER_REPLICA) -> int:
        """How many there should be, of those that are allowed."""
        self._note()
        return min(max(max(need.replicas(per_replica) for need in self._needs), least), most)

    def _rates(self, name: str) -> list[float]:
        """What a figure of each replica that is there grows by in a second."""
        since = self._clock() - SERVER_LEASE_S
        found = [known for known in self._heard.values() if len(known) > 1 and known[-1].at >= since]
        return [(getattr(one[-1], name) - getattr(one[0], name)) / (one[-1].at - one[0].at) for one in found]

    def _note(self) -> None:
        now = Need(self._clock(), self.load, self.runs)
        self._needs.append(now)
        while len(self._needs) > 1 and self._needs[0].at < now.at - DOWN_AFTER_S:
            self._needs.popleft()
        for gone in [name for name, known in self._heard.items() if known[-1].at < now.at - DOWN_AFTER_S]:
            del self._heard[gone]
