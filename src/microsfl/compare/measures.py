"""What a cell came to, round by round: from a run's rows to the rows that tables and plots are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import pstdev
from typing import Any

from ..launch.summary import traffic
from ..spec import RunSpec
from .flops import Flops, sent_samples

Json = dict[str, Any]

ROUND_COLUMNS = (
    "round", "accuracy", "accuracy_mean", "accuracy_std", "accuracy_min", "accuracy_max", "loss", "train_loss",
    "samples", "seconds", "bytes_up", "bytes_down", "bytes_saved", "client_flops", "server_flops",
)  # fmt: skip


def round_rows(
    spec: RunSpec, rounds: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]], flops: Flops
) -> list[Json]:
    """A row for each round, with the columns `ROUND_COLUMNS`; None stands for a value that there is not.

    accuracy_std, _min and _max are over the clients; std is that of a population, as the clients are all there are.
    Bytes are of all clients, in training and in evaluation. client_flops: of a client, on average. server_flops: of
    all split servers together. seconds: of training and sync.
    """
    return [
        _row(spec, one, [row for row in metrics if row["round"] == one["round"]], flops)
        for one in sorted(rounds, key=lambda one: int(one["round"]))
    ]


def spared_share(spec: RunSpec, metrics: Sequence[Mapping[str, Any]], flops: Flops) -> float:
    """The share of the run's operations that clients did not have to do."""
    done = [row["samples"] or 0 for row in metrics]
    return flops.spared(sum(done), sum(sent_samples(spec, samples) for samples in done))


def diverged_in(metrics: Iterable[Mapping[str, Any]]) -> int | None:
    """The first round after which a client's test loss was not a finite number; None when there is none."""
    rounds = [row["round"] for row in metrics if row["test_samples"] and row["test_loss"] is None]
    return min(rounds, default=None)


def _row(spec: RunSpec, one: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], flops: Flops) -> Json:
    accuracies = [row["test_accuracy"] for row in metrics if row["test_accuracy"] is not None]
    samples = [row["samples"] or 0 for row in metrics]
    sent = [sent_samples(spec, count) for count in samples]
    on_clients = flops.per_batch * sum(samples) + flops.per_sent * sum(sent)
    saved = [row.get("bytes_saved") for row in metrics]
    return {
        **{name: _finite(one[name]) for name in ("accuracy", "accuracy_mean", "loss", "train_loss", "seconds")},
        "round": one["round"],
        "accuracy_std": pstdev(accuracies) if len(accuracies) > 1 else None,
        "accuracy_min": min(accuracies) if len(accuracies) > 1 else None,
        "accuracy_max": max(accuracies) if len(accuracies) > 1 else None,
        "samples": sum(samples),
        "bytes_up": traffic(metrics, "bytes_up"),
        "bytes_down": traffic(metrics, "bytes_down"),
        "bytes_saved": None if all(value is None for value in saved) else sum(value or 0 for value in saved),
        "client_flops": on_clients / spec.run_clients,
        "server_flops": flops.server * sum(sent),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no other numbers."""
    return value if value is not None and math.isfinite(value) else None
