"""What a split server keeps in memory or is about to store, each bounded in bytes; all of it can be made again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from ..core.reduce import BodyState
from ..core.step import Forward
from ..core.unit import UnitKey
from ..errors import MicrosflError
from ..process import event
from ..store.verbs import Store
from ..sync import hand_over
from ..sync.body import StateKey
from ..wire.messages import Activations, Backward


@dataclass(frozen=True)
class Held:
    """A forward that waits for its backward: soft state, as the activations are in the store too.

    state: what it was computed with, as the cache of versions names it.
    """

    state: StateKey
    version: int
    batches: int
    forward: Forward
    size_bytes: int

    def fits(self, request: Backward) -> bool:
        """False for another version or division, and for activations that came along: those are to be used."""
        return (self.version, self.batches) == (request.version, request.batches) and not request.activations


class Versions(LRUCache[StateKey, BodyState]):
    """Versions and copies in memory. One that goes takes the graphs on it along, as they hold its weights."""

    def __init__(self, limit_bytes: float, on_drop: Callable[[StateKey], None]) -> None:
        super().__init__(limit_bytes, getsizeof=lambda state: state.size_bytes)
        self.on_drop = on_drop

    def __setitem__(self, key: StateKey, state: BodyState, *_: Any) -> None:
        self.pop(key, None)  # a copy that moved on: what was computed on it before goes too
        super().__setitem__(key, state)

    def __delitem__(self, key: StateKey, *_: Any) -> None:
        super().__delitem__(key)
        self.on_drop(key)

    def drop_run(self, run: str) -> None:
        """Drop all that is of one run."""
        for key in [key for key in self if key[0] == run]:
            del self[key]


class Graphs(LRUCache[UnitKey, Held]):
    """Forwards that wait for their backward."""

    def __init__(self, limit_bytes: float) -> None:
        super().__init__(limit_bytes, getsizeof=lambda held: held.size_bytes)

    def drop(self, state: StateKey) -> None:
        """Drop those on a state that is dropped."""
        for key in [key for key, held in self.items() if held.state == state]:
            del self[key]


class WriteBehind:
    """Stores activations from a thread of its own, bounded in bytes: what does not fit is not stored.

    Losing one costs nothing but that the client may have to send it again.
    """

    def __init__(self, store: Store, limit_bytes: int) -> None:
        self.store = store
        self.limit_bytes = limit_bytes
        self.waiting_bytes = 0
        self.lock = threading.Lock()
        self.thread = ThreadPoolExecutor(1, "write-behind")

    def put(self, message: Activations) -> None:
        size = sum(tensor.nbytes for tensor in message.activations.values())
        with self.lock:
            if self.waiting_bytes + size > self.limit_bytes:
                return
            self.waiting_bytes += size
        self._run(self._write, message, size)

    def forget(self, key: UnitKey) -> None:
        """Remove what `put` stored, or is about to; whoever closes the round removes what stays."""
        if self.limit_bytes:
            self._run(hand_over.forget, self.store, key)

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        self.thread.submit(self._guarded, function, *arguments)

    def close(self) -> None:
        self.thread.shutdown(wait=True)

    def _write(self, message: Activations, size: int) -> None:
        try:
            hand_over.leave(self.store, message)
        finally:
            with self.lock:
                self.waiting_bytes -= size

    def _guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except MicrosflError as error:
            event("write-behind failed", logging.WARNING, code=error.code, message=str(error))
