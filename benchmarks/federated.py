"""A run by real processes over HTTP, and how long its rounds took."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import microsfl


def round_speeds(spec: microsfl.RunSpec) -> list[float]:
    """Samples per second of each round but the first, in which the processes warm up.

    A round lasts from its beginning until the last client holds the averaged weights: training, reduce, averaging and
    hand-out. Clients fetch the new weights as the first thing of their evaluation, so what counts of the evaluation
    is until that of the last of them, on the one test sample that there is, is over; its report is not counted.
    """
    with (
        tempfile.TemporaryDirectory(prefix="microsfl-benchmark-") as folder,
        microsfl.Federation(spec, folder=Path(folder) / "run") as federation,
    ):
        for _ in federation.follow():
            pass
        rounds, metrics = federation.control.rounds(), federation.control.metrics()
    return [_speed(one, [row for row in metrics if row["round"] == one["round"]]) for one in rounds[1:]]


def _speed(round_: dict[str, Any], metrics: list[dict[str, Any]]) -> float:
    held = [row["eval_started_at"] + row["eval_seconds"] for row in metrics]
    samples: int = sum(row["samples"] for row in metrics)
    return samples / (max(round_["synced_at"], *held) - float(round_["started_at"]))
