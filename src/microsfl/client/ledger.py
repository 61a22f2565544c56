"""Where a client's time goes while it does a task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")

OTHER = "other"


class Ledger:
    """Seconds of the thread that does a task, each charged to the phase that the thread is in.

    Phases nest: what is in an inner one is not charged to the outer one, and what is in none is charged to "other". So
    all of them add up to the time between `begin` and `end`, without that between `pause` and `go_on`. What other
    threads do meanwhile is not counted.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.thread: int | None = None
        self.since = 0.0
        self.phases: dict[str, Phase] = {}
        self.open = [self.phase(OTHER)]  # the innermost last

    def begin(self) -> None:
        """From 0 on, on this thread."""
        for phase in self.phases.values():
            phase.seconds = None
        self.open = [self.phase(OTHER)]
        self.go_on()

    def pause(self) -> None:
        self.charge()
        self.thread = None

    def go_on(self) -> None:
        """After a pause, on this thread."""
        self.thread, self.since = get_ident(), self.clock()

    def end(self) -> dict[str, float]:
        """The seconds of each phase that there was."""
        self.pause()
        return {name: phase.seconds for name, phase in self.phases.items() if phase.seconds is not None}

    def phase(self, name: str) -> Phase:
        """For a `with` block, and for any number of them."""
        if name not in self.phases:
            self.phases[name] = Phase(self, name)
        return self.phases[name]

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the seconds that making them takes are charged to the phase."""
        iterator, phase = iter(items), self.phase(name)
        while True:
            with phase:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def charge(self) -> None:
        """Charge the innermost phase with the time since it was charged last."""
        now, phase = self.clock(), self.open[-1]
        phase.seconds = (phase.seconds or 0.0) + now - self.since
        self.since = now


class Phase:
    """A `with` block of a ledger. seconds: charged so far; None until the first."""

    __slots__ = ("ledger", "name", "seconds")

    def __init__(self, ledger: Ledger, name: str) -> None:
        self.ledger, self.name = ledger, name
        self.seconds: float | None = None

    def __enter__(self) -> None:
        if get_ident() == self.ledger.thread:
            self.ledger.charge()
            self.ledger.open.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if get_ident() == self.ledger.thread:
            self.ledger.charge()
            self.ledger.open.pop()
