"""What a round came to, from what its clients reported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RoundSummary:
    """What a round came to. A mean over nothing is None, and so is a rate over no time."""

    accuracy: float | None  #      mean of the clients' test accuracies, weighted by their test samples; 0 to 1
    accuracy_mean: float | None  # their plain mean
    loss: float | None  #          mean of the clients' test losses, weighted by their test samples
    train_loss: float | None  #    mean of the clients' training losses, weighted by their training samples
    samples: int  #                training samples of all clients
    seconds: float  #              wall time of training and sync
    samples_per_s: float | None


def summarize(reports: Iterable[Mapping[str, Any]], seconds: float) -> RoundSummary:
    """The summary of one round from its clients' reports (keys as in the metrics table; absent counts as None)."""
    rows = list(reports)
    accuracies = [(row.get("test_accuracy"), row.get("test_samples")) for row in rows]
    samples = sum(row.get("samples") or 0 for row in rows)
    return RoundSummary(
        accuracy=weighted_mean(accuracies),
        accuracy_mean=weighted_mean((accuracy, 1 if weight else 0) for accuracy, weight in accuracies),
        loss=weighted_mean((row.get("test_loss"), row.get("test_samples")) for row in rows),
        train_loss=weighted_mean((row.get("train_loss"), row.get("samples")) for row in rows),
        samples=samples,
        seconds=seconds,
        samples_per_s=samples / seconds if seconds > 0 else None,
    )


def weighted_mean(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """The mean of the values by their weights; None when no value has a weight above 0."""
    known = [(value, weight) for value, weight in pairs if value is not None and weight]
    total = math.fsum(weight for _, weight in known)
    # fsum makes the result independent of the order in which clients reported.
    return math.fsum(value * weight for value, weight in known) / total if total > 0 else None
