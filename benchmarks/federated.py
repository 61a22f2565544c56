"""A run by real processes over HTTP, and how long its rounds took."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import microsfl

from .places import new_folder

STUCK_S = 60.0  # longer than any round that is measured
LAST_LINES = 3


def round_speeds(spec: microsfl.RunSpec, kind: type[microsfl.Federation] = microsfl.Federation) -> list[float]:
    """Samples per second of each round but the first, in which the processes warm up.

    A round lasts from its beginning until the last client holds the averaged weights: training, reduce, averaging and
    hand-out. Clients fetch the new weights as the first thing of their evaluation, so what counts of the evaluation
    is until that of the last of them, on the one test sample that there is, is over; its report is not counted.

    Raises:
        RunFailed: when the run does.
        TimeoutError: when a round does not end, with the ends of the processes' logs.
    """
    with (
        new_folder() as folder,
        kind(spec, folder=folder / "run") as federation,
    ):
        _follow(federation)
        rounds, metrics = federation.control.rounds(), federation.control.metrics()
    return [_speed(one, [row for row in metrics if row["round"] == one["round"]]) for one in rounds[1:]]


def _follow(federation: microsfl.Federation) -> None:
    done, since = 0, time.monotonic()
    for run in federation.follow():
        if len(run["history"]) > done:
            done, since = len(run["history"]), time.monotonic()
        if time.monotonic() - since > STUCK_S:
            ends = [line for log in federation.folder.logs.iterdir() for line in _end(log)]
            raise TimeoutError("\n".join([f"round {done} did not end in {STUCK_S:g} s", *ends]))


def _end(log: Path) -> list[str]:
    return [f"{log.name}: {line:.1000}" for line in log.read_text("utf-8", errors="replace").splitlines()[-LAST_LINES:]]


def _speed(round_: dict[str, Any], metrics: list[dict[str, Any]]) -> float:
    held = [row["eval_started_at"] + row["eval_seconds"] for row in metrics]
    seconds: float = max(round_["synced_at"], *held) - round_["started_at"]
    samples: int = sum(row["samples"] for row in metrics)
    return samples / seconds
