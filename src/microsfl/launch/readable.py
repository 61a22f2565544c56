"""Numbers as a person reads them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """1 client, 2 clients."""
    return f"{number} {noun}" + ("s" if number != 1 else "")


def rounded(value: float | None) -> str:
    """To four places, or a dash where there is no value."""
    return "–" if value is None else f"{value:.4f}"
