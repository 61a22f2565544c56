"""Which runs need split servers: those that are under way, and those that somebody is about to create."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..core.run_state import Status
from ..errors import Unreachable
from ..spec import RunSpec
from .run import Run

WISH_S = 60.0  # how long a run counts that could not be created, as there was no server: its creator comes again
ACTIVE = (Status.WAITING, Status.RUNNING)


class Wishes:
    """Runs that cannot begin before there is a split server. Times are seconds of `clock`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._now, self._failed_at = 0, -math.inf

    @contextmanager
    def wish(self, spec: RunSpec) -> Iterator[None]:
        """A run is prepared for as long as the block lasts."""
        wishes = int(spec.strategy.traits.split)
        self._now += wishes
        try:
            yield
        except Unreachable:
            if wishes:
                self._failed_at = self._clock()
            raise
        finally:
            self._now -= wishes

    def count(self) -> int:
        return self._now or int(self._clock() - self._failed_at < WISH_S)


def in_need(runs: Iterable[Run], wishes: Wishes) -> int:
    """How many runs need split servers now, or will as soon as there are some."""
    return sum(run.spec.strategy.traits.split and run.state.status in ACTIVE for run in runs) + wishes.count()
