"""How many requests a replica has, on average: those that wait, and the one that it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter


class Load:
    """`seconds` is the sum, over all requests, of the time that each was here, those under way included. So what it
    grows by in a second is the mean number of requests in that second. Of one event loop, but for `seconds`."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._now = 0
        self._until, self._sum = clock(), 0.0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A request is here for as long as the block lasts."""
        yield from self._changed(1)

    @contextmanager
    def without(self) -> Iterator[None]:
        """A request that is here is not, for as long as the block lasts: it waits for its sender."""
        yield from self._changed(-1)

    @property
    def now(self) -> int:
        return self._now

    @property
    def seconds(self) -> float:
        return self._sum + self._now * (self._clock() - self._until)

    def _changed(self, by: int) -> Iterator[None]:
        self._change(by)
        try:
            yield
        finally:
            self._change(-by)

    def _change(self, by: int) -> None:
        now = self._clock()
        self._sum, self._until = self._sum + self._now * (now - self._until), now
        self._now += by
