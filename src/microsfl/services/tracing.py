"""What a replica tells of its requests to whoever follows a unit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import time_ns

from ..errors import MicrosflError
from ..telemetry.traces import Spent, Traces
from ..wire.messages import Message, UnitMessage
from ..wire.timing import Timing
from .stopwatch import Measured


class Tracing:
    """Of one request at a time, on the thread that computes."""

    def __init__(self, traces: Traces) -> None:
        self.traces = traces
        self._spent: list[Spent] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A `with` block within a request."""
        began_ns = time_ns()
        yield
        self._spent.append(Spent(name, began_ns, time_ns()))

    def served(self, message: Message, path: str, parent: str | None, timing: Timing) -> None:
        spent, self._spent = self._spent, []
        if isinstance(message, UnitMessage):
            self.traces.served(message.key, path, parent, timing, spent)

    def refused(
        self, message: Message, path: str, parent: str | None, measured: Measured, error: MicrosflError
    ) -> None:
        self._spent = []
        if isinstance(message, UnitMessage):
            lasted_s = measured.watch.clock() - measured.began
            self.traces.refused(message.key, path, parent, time_ns() - round(lasted_s * 1e9), error.code)


def part(tracing: Tracing | None, name: str) -> AbstractContextManager[None]:
    return nullcontext() if tracing is None else tracing.part(name)
