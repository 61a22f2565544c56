"""Work that threads do ahead, while what comes before it is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(items: Sequence[Item], work: Callable[[Item], Result], threads: int) -> Iterator[Result]:
    """work(item) for each of the items, in their order, whichever is done first.

    At most `threads` results exist at a time, finished or not, the one that the caller uses among them. One thread is
    the caller's own.
    """
    if threads < 2 or len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, "ahead") as pool:
        waiting = deque(pool.submit(work, item) for item in items[:threads])
        try:
            for item in items[threads:]:
                yield waiting.popleft().result()
                waiting.append(pool.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
