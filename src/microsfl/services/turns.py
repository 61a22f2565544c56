"""Whose turn it is: many callers at one compute thread, and at few places for bodies in memory.

The thread goes to whoever has had the least of its time (start-time fair queueing, Goyal, Vin and Cheng 1996, with
the time that a job took in place of a packet's length, known once it is done). So a caller that sends without
end, or sends what takes long, gets its share and no more, and the others find the thread as if there were one more of
them. Each caller's own requests stay in their order.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

# Jobs that the thread has at a time: the one it is at, and one, so that it does not wait for the event loop.
AHEAD = 2
# Callers that wait for nothing are remembered while they have had more than the others; at most so many.
REMEMBERED = 1024

Result = TypeVar("Result")


class Line(NamedTuple):
    """Who waits: a name, and how large a share of the time it has; an infinite share is served first, always."""

    name: str
    share: float = 1.0


class Job(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    answer: asyncio.Future[Any]


class Waiting:
    """The jobs of one line. spent: of the thread's time, in seconds over its share."""

    __slots__ = ("jobs", "share", "spent")

    def __init__(self, share: float, spent: float) -> None:
        self.jobs: deque[Job] = deque()
        self.share = share
        self.spent = -math.inf if math.isinf(share) else spent


class Turns:
    """Jobs for an executor of one thread. Of one event loop."""

    def __init__(self, thread: Executor) -> None:
        self._thread = thread
        self._lines: dict[str, Waiting] = {}
        self._busy: dict[str, Waiting] = {}  # those with jobs
        self._at_work = 0
        self._now = 0.0  # what the last one that was served had spent: who comes anew has spent as much

    async def run(self, line: Line, function: Callable[..., Result], *arguments: Any) -> Result:
        """What the function returns or raises, on the thread, once it is the line's turn."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting = self._lines.get(line.name)
        if waiting is None:
            waiting = self._lines[line.name] = Waiting(line.share, self._now)
            self._forget()
        elif not waiting.jobs and not math.isinf(waiting.spent):
            waiting.spent = max(waiting.spent, self._now)
        waiting.share = line.share
        waiting.jobs.append(Job(function, arguments, answer))
        self._busy[line.name] = waiting
        self._go_on()
        return await answer

    @property
    def length(self) -> int:
        """Jobs that wait."""
        return sum(len(waiting.jobs) for waiting in self._busy.values())

    def _go_on(self) -> None:
        while self._at_work < AHEAD and self._busy:
            name = min(self._busy, key=self._spent) if len(self._busy) > 1 else next(iter(self._busy))
            waiting = self._busy[name]
            job = waiting.jobs.popleft()
            if not waiting.jobs:
                del self._busy[name]
            if job.answer.cancelled():  # nobody is left to read it
                continue
            self._now = max(self._now, waiting.spent)
            try:
                self._thread.submit(self._work, job, waiting)
            except RuntimeError as stopped:  # the service ends
                job.answer.set_exception(stopped)
                continue
            self._at_work += 1

    def _spent(self, name: str) -> float:
        return self._busy[name].spent

    def _work(self, job: Job, waiting: Waiting) -> None:
        began, result, error = perf_counter(), None, None
        try:
            result = job.function(*job.arguments)
        except BaseException as raised:  # noqa: BLE001  (it is raised where the answer is waited for)
            error = raised
        took_s = perf_counter() - began
        job.answer.get_loop().call_soon_threadsafe(self._done, job, waiting, result, error, took_s)

    def _done(self, job: Job, waiting: Waiting, result: Any, error: BaseException | None, took_s: float) -> None:
        self._at_work -= 1
        waiting.spent += took_s / waiting.share
        if not job.answer.done():
            if error is None:
                job.answer.set_result(result)
            else:
                job.answer.set_exception(error)
        self._go_on()

    def _forget(self) -> None:
        """Forget lines that wait for nothing, once there are many: first those that owe nothing."""
        if len(self._lines) <= REMEMBERED:
            return
        idle = sorted((waiting.spent, name) for name, waiting in self._lines.items() if not waiting.jobs)
        for _, name in idle[: len(self._lines) - REMEMBERED // 2]:
            del self._lines[name]


class Places:
    """A semaphore whose places go round: to one waiting caller after the other, whoever waits longest among its own.

    No caller has more than `each` of them, so that there are some left for the others, whatever it does with its own.
    """

    def __init__(self, count: int, each: int) -> None:
        self._free, self._each = count, each
        self._held: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def of(self, line: Line) -> Place:
        """A place for a `with` block."""
        return Place(self, line.name)

    async def take(self, name: str) -> None:
        held = self._held.get(name, 0)
        if self._free and held < self._each and name not in self._waiting:
            self._grant(name)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave(name)  # the place was given in the same moment
            raise

    def leave(self, name: str) -> None:
        self._free += 1
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]
        while self._free and (found := self._next()) is not None:
            waiter = self._waiting[found].popleft()
            if not self._waiting[found]:
                del self._waiting[found]
            else:
                self._waiting.move_to_end(found)
            if not waiter.cancelled():
                self._grant(found)
                waiter.set_result(None)

    def _next(self) -> str | None:
        return next((name for name in self._waiting if self._held.get(name, 0) < self._each), None)

    def _grant(self, name: str) -> None:
        self._free -= 1
        self._held[name] = self._held.get(name, 0) + 1


class Place:
    __slots__ = ("name", "places")

    def __init__(self, places: Places, name: str) -> None:
        self.places, self.name = places, name

    async def __aenter__(self) -> None:
        await self.places.take(self.name)

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.places.leave(self.name)
