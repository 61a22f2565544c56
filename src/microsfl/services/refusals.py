"""Whom the coordinator refused, and who logged in to the dashboard, as the audit trail has it: counted.

What anybody can bring about as often as they like must not fill the disk. So there is at most one entry in a window of
time, with at most `KEPT` lines, and the windows grow as long as there is something to write in each: from ten seconds
to ten minutes. That is 144 entries a day, of a few kilobytes each, however many requests there are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import OperationError
from ..process import event
from ..records import Entry
from ..records.trail import Trail
from .meter import Requests

REFUSED = (401, 403, 422)
FIRST_WINDOW_S = 10.0
LONGEST_WINDOW_S = 600.0
KEPT = 32
FLUSH_EVERY_S = 1.0
NOBODY = "nobody"  # without a right token

Line = tuple[str, str, str, str, int]  # who, from where, method, route, status


class Refusals:
    """What is not written yet. For the event loop's thread."""

    def __init__(self, trail: Trail, clock: Callable[[], float], ticking: Callable[[], float] = time.monotonic) -> None:
        self.trail, self._clock, self._ticking = trail, clock, ticking
        self._lines: Counter[Line] = Counter()
        self._more = 0
        self._others: list[Entry] = []
        self._window_s, self._began = FIRST_WINDOW_S, ticking()

    def count(self, line: Line, count: int = 1) -> None:
        if line in self._lines or len(self._lines) < KEPT:
            self._lines[line] += count
        else:
            self._more += count

    def also(self, entry: Entry) -> None:
        """An entry that goes with the next ones: about what is kept nowhere in the records, and happens seldom."""
        self._others.append(entry)

    async def keep(self) -> None:
        """Write when it is time, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush(now=False)

    async def flush(self, *, now: bool = True) -> None:
        """Write what there is, or, without `now`, what is due; what cannot be written stays for the next time."""
        others, self._others = self._others, []
        lines, more = Counter[Line](), 0
        if now or self._ticking() - self._began >= self._window_s:
            lines, self._lines, more, self._more = self._lines, lines, self._more, 0
            self._window_s = min(LONGEST_WINDOW_S, 2 * self._window_s) if lines else FIRST_WINDOW_S
            self._began = self._ticking()
        entries = [*others, *self._entries(lines, more)]
        if entries:
            try:
                await asyncio.to_thread(self.trail.add, entries)
            except OperationError as error:
                event("refusals not written", logging.WARNING, error=str(error))
                self._others = others + self._others
                self._more += more
                for line, count in lines.items():
                    self.count(line, count)

    def _entries(self, lines: Counter[Line], more: int) -> Iterable[Entry]:
        if lines:
            told = [
                {"who": who, "from": place, "method": method, "path": path, "status": status, "count": count}
                for (who, place, method, path, status), count in lines.most_common()
            ]
            yield Entry(self._clock(), "coordinator", "requests counted", "coordinator", {"counts": told, "more": more})


class Watch:
    """Middleware that counts what was refused, by whom it was asked."""

    def __init__(self, app: ASGIApp, refusals: Refusals, requests: Requests) -> None:
        self._app, self._refusals, self._requests = app, refusals, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in REFUSED:
                caller = scope.get("state", {}).get("caller")
                route = self._requests.labels(scope["method"], scope["path"])
                who = NOBODY if caller is None else caller.id
                self._refusals.count((who, place_of(scope), *route, message["status"]))
            await send(message)

        await self._app(scope, receive, watched if scope["type"] == "http" else send)


def place_of(scope: Scope) -> str:
    """The address that a request came from; of a proxy, where there is one."""
    client = scope.get("client")
    return str(client[0]) if client else ""
