"""What a benchmark comes to: ratios, one for each repetition, and what they should be."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LATEST = Path(__file__).parent / "latest.json"


@dataclass(frozen=True)
class Figure:
    """A ratio, measured several times.

    values: one for each repetition, at least one.
    at_least: whether the median should reach the target, or stay below it.
    note: anything that a reader of the table should know: absolute numbers, say.
    """

    name: str
    values: tuple[float, ...]
    target: float
    at_least: bool
    note: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.name}: nothing was measured")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def min(self) -> float:
        return min(self.values)

    @property
    def max(self) -> float:
        return max(self.values)

    @property
    def ok(self) -> bool:
        """Whether the median meets the target."""
        return self.median >= self.target if self.at_least else self.median <= self.target

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median": self.median,
            "min": self.min,
            "max": self.max,
            "target": self.target,
            "ok": self.ok,
        }


def write_latest(figures: Iterable[Figure], path: Path = LATEST) -> None:
    """A JSON list, an object for each figure."""
    path.write_text(json.dumps([figure.to_json() for figure in figures], indent=2) + "\n", "utf-8")
