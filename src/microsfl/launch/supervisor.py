"""Starts processes again that ended without being told to, within a limit, and says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .child import Child
from .kept import Kept
from .readable import counted
from .repeated import Repeated

LOOK_EVERY_S = 0.05
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
STEADY_S = 2.0


class Supervisor(Repeated):
    """Watches child processes from a thread of its own.

    A process that ended is started again, at once when it had been up for `STEADY_S`, else after a pause that doubles
    with each time in a row. One that was restarted `limit` times (None: there is no limit) stays down, and so does one
    that refuses its settings.
    `on_change` is called after each restart.
    """

    def __init__(self, children: Sequence[Child], limit: int | None, on_change: Callable[[], None]) -> None:
        super().__init__("supervisor", LOOK_EVERY_S)
        self.children = children
        self.limit = limit
        self.on_change = on_change
        self.reports: list[str] = []
        self._in_a_row: dict[str, int] = {}
        self._due_at: dict[str, float] = {}

    def is_down(self, child: Kept) -> bool:
        """It ended and will not be started again."""
        return child.state == "ended" and (child.refused or (self.limit is not None and child.restarts >= self.limit))

    def _look(self) -> None:
        for child in list(self.children):
            if child.state == "ended" and not self.is_down(child):
                try:
                    self._restart_when_due(child)
                except OSError as error:  # no process or no disk to be had just now: tried again
                    self.reports.append(f"{child.name} could not be started again: {error}")

    def _restart_when_due(self, child: Child) -> None:
        now = time.monotonic()
        if child.name not in self._due_at:
            steady = child.up_since is not None and now - child.up_since >= STEADY_S
            self._in_a_row[child.name] = 0 if steady else self._in_a_row.get(child.name, 0) + 1
            pause_s = FIRST_PAUSE_S * 2 ** self._in_a_row[child.name] if self._in_a_row[child.name] else 0.0
            self._due_at[child.name] = now + min(pause_s, LONGEST_PAUSE_S)
        if now < self._due_at[child.name]:
            return
        del self._due_at[child.name]
        ending = child.ending()
        child.restart()
        times = counted(child.restarts, "time") if self.limit is None else f"{child.restarts} of {self.limit} times"
        self.reports.append(f"{child.name} ended with {ending}; started again ({times})")
        self.on_change()
