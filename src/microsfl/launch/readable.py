"""Numbers as a person reads them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """1 client, 2 clients."""
    return f"{number} {noun}" + ("s" if number != 1 else "")


def rounded(value: float | None) -> str:
    """To four places, or a dash where there is no value."""
    return "–" if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """As on a clock: 0:07, 12:30, 3:05:00."""
    whole = max(0, int(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def age(seconds: float) -> str:
    """Roughly how long ago, in the largest unit that fits."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def plain(text: str) -> str:
    """Without what a terminal would obey: text from elsewhere may hold escape sequences."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
