"""A store that counts the seconds which its caller spends in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TypeVar

from .tally import Tally
from .verbs import Store

T = TypeVar("T")


class Timed:
    """The verbs of `store`. seconds: in all calls so far, also in those that failed.

    For one thread: of calls that go on at the same time, some may not be counted.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = perf_counter) -> None:
        self.store = store
        self.seconds = 0.0
        self._clock = clock

    @property
    def readers(self) -> int:
        return self.store.readers

    @property
    def tally(self) -> Tally:
        return self.store.tally

    def put(self, key: str, value: bytes) -> None:
        self._timed(self.store.put, key, value)

    def create(self, key: str, value: bytes) -> bool:
        return self._timed(self.store.create, key, value)

    def get(self, key: str) -> bytes:
        return self._timed(self.store.get, key)

    def read_into(self, key: str, buffer: memoryview) -> int:
        return self._timed(self.store.read_into, key, buffer)

    def exists(self, key: str) -> bool:
        return self._timed(self.store.exists, key)

    def size(self, key: str) -> int:
        return self._timed(self.store.size, key)

    def list(self, prefix: str) -> Iterator[str]:
        return self._timed(self.store.list, prefix)

    def delete(self, key: str) -> None:
        self._timed(self.store.delete, key)

    def _timed(self, verb: Callable[..., T], *arguments: str | bytes | memoryview) -> T:
        began = self._clock()
        try:
            return verb(*arguments)
        finally:
            self.seconds += self._clock() - began
