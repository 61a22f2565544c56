"""Which split server a client asks, where it knows several.

sticky: replica number `favourite` (modulo their number, in sorted order), and the next when that one fails. random:
any, each time. two: the power of two choices (Mitzenmacher, 2001) with a memory: the one that it asked last, unless
another one that it draws at random has at least two requests less, or now and then one; the backward of a unit goes
where its forward was, as the autograd graph is there.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from cachetools import LRUCache

from ..spec.names import Spread

FRESH_S = 5.0  # what a server said of itself before that is not known any more, and it is taken to be idle
# How often a client goes where there is just one request less: whoever always did would go round and round with all
# others, and whoever never did would not find a server that has nothing to do.
CURIOUS = 0.1
PLACES_KEPT = 4096


class Loads:
    """What is known in this process of how many requests each server has. For any number of threads."""

    def __init__(self) -> None:
        self._own: Counter[str] = Counter()  # under way from here
        self._others: dict[str, tuple[int, float]] = {}  # of others, when it answered last, and when that was
        self._lock = threading.Lock()

    def of(self, server: str) -> int:
        others, at = self._others.get(server, (0, 0.0))
        return self._own[server] + (others if time.monotonic() - at < FRESH_S else 0)

    def asked(self, server: str) -> None:
        with self._lock:
            self._own[server] += 1

    def over(self, server: str) -> None:
        """What was asked is over, however."""
        with self._lock:
            self._own[server] -= 1

    def told(self, server: str, load: int) -> None:
        """It answered, and has so many other requests."""
        with self._lock:
            self._others[server] = max(0, load - self._own[server]), time.monotonic()


@dataclass
class Choice:
    """The order in which one client asks the servers. loads: of the whole process."""

    spread: Spread
    favourite: int
    loads: Loads = field(default_factory=Loads)
    _places: LRUCache[Hashable, str] = field(default_factory=lambda: LRUCache(PLACES_KEPT))
    _last: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self, servers: Sequence[str], back: Hashable = None) -> list[str]:
        """Each of them once, the one to ask first of all. back: a unit whose forward was somewhere."""
        known = sorted(set(servers))  # behind a load balancer all have its address
        if len(known) < 2:
            return known
        if self.spread == "random":
            return random.sample(known, len(known))
        first = known.index(self._of_two(known, back)) if self.spread == "two" else self.favourite % len(known)
        return known[first:] + known[:first]

    def went(self, unit: Hashable, server: str) -> None:
        """The forward of a unit was computed there."""
        with self._lock:
            self._places[unit] = server

    def _of_two(self, known: Sequence[str], back: Hashable) -> str:
        with self._lock:
            place = self._places.pop(back, None) if back is not None else None
            if place is not None and place in known:
                return place
            last = self._last
            if last is None or last not in known:
                last = known[self.favourite % len(known)]
            other = random.choice([one for one in known if one != last])
            less = self.loads.of(last) - self.loads.of(other)
            self._last = other if less > 1 or (less == 1 and random.random() < CURIOUS) else last
            return self._last
