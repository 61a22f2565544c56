"""Numbers, times and texts as they are shown."""

from __future__ import annotations

import pytest

from microsfl.launch.progress import remaining
from microsfl.launch.readable import age, duration, plain


@pytest.mark.parametrize(
    ("seconds", "clock", "rough"),
    [
        (0.4, "0:00", "0 s"),
        (59.9, "0:59", "60 s"),
        (750, "12:30", "12 min"),
        (11_100, "3:05:00", "3 h"),
        (180_000, "50:00:00", "2 d"),
    ],
)
def test_times(seconds: float, clock: str, rough: str) -> None:
    assert duration(seconds) == clock
    assert age(seconds) == rough


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    assert (duration(-5), age(-5)) == ("0:00", "0 s")


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    assert plain("a\x1b[2J\r\x07\u202eb\nc\tä") == "a\\x1b[2J\\r\\x07\\u202eb\nc\\tä"


@pytest.mark.parametrize(
    ("first", "done", "expected"),
    [(None, 3, ""), ((0.0, 1), 1, ""), ((0.0, 1), 6, "about 0:28 left"), ((0.0, 1), 20, "")],
)
def test_the_rest_is_estimated_once_there_is_a_pace(first: tuple[float, int] | None, done: int, expected: str) -> None:
    assert remaining(first, 10.0, done, 20) == expected
