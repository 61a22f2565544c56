"""Reading ahead: threads read what comes next while what came before is used, in a fixed amount of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Room = TypeVar("Room")
Result = TypeVar("Result")


def in_order(
    items: Sequence[Item], work: Callable[[Item, Room], Result], rooms: Sequence[Room], threads: int
) -> Iterator[Result]:
    """work(item, room) for each of the items, in their order, whichever is done first.

    A room is used for one item at a time, from the beginning of its work until the caller asks for the result after
    it: so there are never more results than rooms.

    Args:
        rooms: one or more, and as many as there are threads.
        threads: 0 leaves all work to the caller's own.
    """
    if not threads:
        for item in items:
            yield work(item, rooms[0])
        return
    lanes = [_Lane(items[first::threads], work, rooms[first::threads]) for first in range(threads)]
    try:
        for place in range(len(items)):
            yield from lanes[place % threads].take()
    finally:
        for lane in lanes:
            lane.stop()


class _Lane(Generic[Item, Room, Result]):
    """A thread that works on some of the items, and the rooms that it has for them."""

    def __init__(self, items: Sequence[Item], work: Callable[[Item, Room], Result], rooms: Sequence[Room]) -> None:
        self.items, self.work = items, work
        self.free: SimpleQueue[Room | None] = SimpleQueue()
        self.done: SimpleQueue[tuple[Room, Result] | Exception] = SimpleQueue()
        for room in rooms:
            self.free.put(room)
        self.thread = Thread(target=self._run, name="read-ahead", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for item in self.items:
            room = self.free.get()
            if room is None:
                return
            try:
                self.done.put((room, self.work(item, room)))
            except Exception as error:  # noqa: BLE001 - it is raised where the result is waited for
                self.done.put(error)
                return

    def take(self) -> Iterator[Result]:
        """The next result. Its room is free again when the caller comes back."""
        found = self.done.get()
        if isinstance(found, Exception):
            raise found
        room, result = found
        yield result
        self.free.put(room)

    def stop(self) -> None:
        """End the thread after what it is at."""
        while not self.free.empty():
            self.free.get()
        self.free.put(None)
        self.thread.join()
