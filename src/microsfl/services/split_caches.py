"""What a split server keeps in memory or is about to store, each bounded in bytes; all of it can be made again."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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

# How long activations wait for the backward of a client that comes back to the replica which has its graph.
HOLD_S = 1.0


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

    A client that comes back to this replica seldom needs them in the store, so those are held for `HOLD_S` first: most
    are forgotten before they are written, which saves a file and its removal. Losing one costs nothing but that the
    client may have to send it again.
    """

    def __init__(self, store: Store, limit_bytes: int) -> None:
        self.store = store
        self.limit_bytes = limit_bytes
        self.waiting_bytes = 0
        self._waiting: OrderedDict[UnitKey, _Waiting] = OrderedDict()
        self._forgotten: deque[UnitKey] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, message: Activations, *, hold: bool) -> None:
        """hold: the client means to come back to this replica."""
        size = sum(tensor.nbytes for tensor in message.activations.values())
        due = time.monotonic() + HOLD_S if hold else 0.0
        with self._changed:
            self._drop(message.key)
            if self.waiting_bytes + size > self.limit_bytes:
                return
            self.waiting_bytes += size
            self._waiting[message.key] = _Waiting(message, size, due)
            self._waiting.move_to_end(message.key, last=hold)  # the first is the one that is due first
            if next(iter(self._waiting)) == message.key:
                self._wake()

    def forget(self, key: UnitKey) -> None:
        """Drop what `put` is about to store, or remove what is there; whoever closes the round removes what stays."""
        with self._changed:
            if not self._drop(key) and self.limit_bytes:
                self._forgotten.append(key)
                self._wake()

    def close(self) -> None:
        """Store what is held, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="write-behind", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _drop(self, key: UnitKey) -> bool:
        known = self._waiting.pop(key, None)
        self.waiting_bytes -= known.size_bytes if known else 0
        return known is not None

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except MicrosflError as error:
                event("write-behind failed", logging.WARNING, code=error.code, message=str(error))

    def _next(self) -> Callable[[], None] | None:
        """The next write or removal, once it is due; None at the end."""
        with self._changed:
            while True:
                now = math.inf if self._closed else time.monotonic()
                first = next(iter(self._waiting.values()), None)
                if first is not None and first.due <= now:
                    self._drop(first.message.key)
                    return partial(hand_over.leave, self.store, first.message)
                if self._forgotten:  # after the writes, as one of them may be what is to be removed
                    return partial(hand_over.forget, self.store, self._forgotten.popleft())
                if self._closed:
                    return None
                self._changed.wait(None if first is None else first.due - now)


@dataclass(frozen=True)
class _Waiting:
    """due: when it is to be stored, on the monotonic clock."""

    message: Activations
    size_bytes: int
    due: float
