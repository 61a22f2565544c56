"""Places of a simulation where work is done in the order in which it comes, one piece at a time.

A place needs no event of its own: whoever enters learns when its work will be done, which nobody who comes later
changes.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heapreplace


class Cores:
    """Cores that places of one machine share: work begins on the one that is free first. worked: seconds of all.

    Who enters begins now, or as soon as a core is free: work that has to wait for its place must not enter before."""

    def __init__(self, count: int) -> None:
        self.count, self.worked = count, 0.0
        self._free_at = [0.0] * count
        heapify(self._free_at)

    def enter(self, now: float, seconds: float) -> float:
        done = max(now, self._free_at[0]) + seconds
        heapreplace(self._free_at, done)
        self.worked += seconds
        return done


class Place:
    """It has a core of its own. total: seconds of all work."""

    def __init__(self) -> None:
        self.free_at = self.total = 0.0
        self._ends: deque[float] = deque()

    def enter(self, now: float, core_s: float, other_s: float) -> float:
        """When work that comes now is done: seconds on a core, and then of a device, a link or a store."""
        self.free_at = max(now, self.free_at) + core_s + other_s
        self.total += core_s + other_s
        self._ends.append(self.free_at)
        return self.free_at

    def queued(self, now: float) -> int:
        """Pieces of work that are not done."""
        while self._ends and self._ends[0] <= now:
            self._ends.popleft()
        return len(self._ends)

    def worked(self, until: float) -> float:
        """Seconds of work up to then; what is still to do is left out."""
        return max(0.0, self.total - max(0.0, self.free_at - until))
