"""Reading ahead: the order is kept, the memory is bounded, and no thread outlives its use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from microsfl.sync import ahead
from microsfl.sync.ahead import in_order

ROOMS = ("a", "b", "c", "d")


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


class Backwards:
    """Work that is done in the opposite order, as far as there are rooms: an item waits for those that come next."""

    def __init__(self, items: int, at_a_time: int) -> None:
        self.done = [threading.Event() for _ in range(items)]
        self.at_a_time = at_a_time
        self.finished: list[int] = []

    def __call__(self, item: int, _room: str) -> int:
        turn = item // self.at_a_time
        later = [other for other in range(item + 1, len(self.done)) if other // self.at_a_time == turn]
        assert all(self.done[other].wait(30) for other in later)
        self.finished.append(item)
        self.done[item].set()
        return item


@pytest.mark.parametrize("threads", [2, 4])
def test_results_come_in_order_whichever_is_done_first(threads: int) -> None:
    work = Backwards(12, threads)
    assert list(in_order(range(12), work, ROOMS[:threads], threads)) == list(range(12))
    assert work.finished != sorted(work.finished)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_there_are_never_more_results_than_rooms_and_none_shares_its_room(threads: int) -> None:
    used: list[str] = []  # by a result that is being made, waits, or is looked at
    most: list[int] = []
    lock = threading.Lock()

    def work(item: int, room: str) -> tuple[int, str]:
        with lock:
            assert not threads or room not in used
            used.append(room)
            most.append(len(used))
        return item, room

    for item, (found, room) in enumerate(in_order(range(40), work, ROOMS, threads)):
        assert found == item
        with lock:
            used.remove(room)
    assert 0 < max(most) <= len(ROOMS)


def test_a_room_is_free_again_only_when_its_result_is_not_used_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[str] = []

    class Noted(SimpleQueue):  # type: ignore[type-arg]
        def put(self, item: Any, *arguments: Any) -> None:
            freed.extend([item] if item in ROOMS else [])
            super().put(item, *arguments)

    monkeypatch.setattr(ahead, "SimpleQueue", Noted)
    results = in_order(range(9), lambda item, room: (item, room), ROOMS[:3], 1)
    for number in range(6):
        _, room = next(results)
        assert len(freed) == 3 + number
        assert room == ROOMS[number % 3]
    results.close()  # type: ignore[attr-defined]


def one_fails(items: int, failing: int) -> Callable[[int, str], int]:
    def work(item: int, _room: str) -> int:
        if item == failing:
            raise FileNotFoundError(f"item {item} of {items}")
        return item

    return work


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("failing", [0, 5, 8])
def test_an_error_comes_where_its_result_would_and_ends_the_threads(threads: int, failing: int) -> None:
    found: list[int] = []
    with pytest.raises(FileNotFoundError, match=f"item {failing} of 9"):
        found.extend(in_order(range(9), one_fails(9, failing), ROOMS, threads))
    assert found == list(range(failing))
    assert readers() == []


@pytest.mark.parametrize("threads", [1, 3])
def test_who_does_not_want_the_rest_leaves_no_thread_behind(threads: int) -> None:
    results: Any = in_order(range(1000), lambda item, _: item, ROOMS, threads)
    assert [next(results), next(results)] == [0, 1]
    assert readers()
    results.close()
    assert readers() == []


def test_without_items_nothing_happens() -> None:
    assert list(in_order([], one_fails(0, 0), ROOMS, 2)) == []
    assert readers() == []
