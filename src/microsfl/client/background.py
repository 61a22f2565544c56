"""Jobs that need not be waited for, and answers that are waited for later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

import torch

from ..device import use_threads

Result = TypeVar("Result")
P = ParamSpec("P")
Awaited = Callable[[], Result]  # waits for the result; raises what made it fail


class Submit(Protocol):
    """Has a function called, now or later."""

    def __call__(self, function: Callable[P, Result], /, *arguments: P.args, **named: P.kwargs) -> Awaited[Result]: ...


def at_once(function: Callable[P, Result], /, *arguments: P.args, **named: P.kwargs) -> Awaited[Result]:
    """A `Submit` that calls before it returns."""
    result = function(*arguments, **named)
    return lambda: result


class Senders:
    """Threads that send requests for as long as a `with` block lasts; leaving drops the requests that have not begun.

    Args:
        threads: requests that may be under way at a time. 0: no thread, each is made before `submit` returns.
    """

    def __init__(self, threads: int) -> None:
        self._threads = _pool(threads, "sender") if threads else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[P, Result], /, *arguments: P.args, **named: P.kwargs) -> Awaited[Result]:
        """See `Submit`."""
        if self._threads is None:
            return at_once(function, *arguments, **named)
        return self._threads.submit(function, *arguments, **named).result


class Background:
    """One thread for as long as a `with` block lasts; leaving drops the jobs that have not begun.

    Args:
        in_flight: jobs that may be unfinished at a time; `put` waits for the oldest when there are more. 0: no thread,
            each job is done before `put` returns.
    """

    def __init__(self, in_flight: int) -> None:
        self.in_flight = in_flight
        self._thread = _pool(1, "background") if in_flight else None
        self._jobs: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def put(self, job: Callable[[], None]) -> None:
        """Do `job` after those before it. Raises what one of these raised."""
        if self._thread is None:
            job()
            return
        while len(self._jobs) >= self.in_flight:
            self._jobs.popleft().result()
        self._jobs.append(self._thread.submit(job))

    def wait(self) -> None:
        """Until all jobs are done. Raises what the first that failed raised."""
        while self._jobs:
            self._jobs.popleft().result()


def _pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Threads whose torch operations use as many threads as those of the one that makes them."""
    return ThreadPoolExecutor(threads, name, use_threads, (torch.get_num_threads(),))
