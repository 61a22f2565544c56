"""The four pictures of a run folder. matplotlib is imported with this module, so import it when pictures are wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..core.partition import IntArray

SIZE_INCHES = (8.0, 4.5)
DPI = 130
BLUE, ORANGE, GREY = "#1f5fa8", "#e07b1a", "#9aa5b1"
LEGEND_CLASSES = 12  # more classes get a colour bar

Json = dict[str, Any]


def write_plots(folder: Path, rounds: Sequence[Json], metrics: Sequence[Json], class_counts: IntArray | None) -> None:
    """accuracy.png, loss.png, timeline.png and, where the class counts are known, partition.png.

    Args:
        rounds: of the coordinator, all over. metrics: its row for each round and client.
        class_counts: train samples, int64 [clients, classes].
    """
    folder.mkdir(exist_ok=True)
    pictures = {
        "accuracy": accuracy(rounds, metrics),
        "loss": loss(rounds),
        **({} if class_counts is None else {"partition": partition(class_counts)}),
        "timeline": timeline(rounds, metrics),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / f"{name}.png", dpi=DPI)


def accuracy(rounds: Sequence[Json], metrics: Sequence[Json]) -> Figure:
    """Test accuracy after each round: weighted mean, plain mean, and each client."""
    figure, axes = _axes("Test accuracy of the averaged model")
    clients = sorted({row["client"] for row in metrics})
    for client in clients:
        rows = [row for row in metrics if row["client"] == client and row["test_accuracy"] is not None]
        label = "each client" if client == clients[0] else None
        points = [row["round"] + 1 for row in rows]
        axes.plot(points, [row["test_accuracy"] for row in rows], color=GREY, lw=0.8, marker=".", ms=3, label=label)
    _curve(axes, rounds, "accuracy_mean", "mean over clients", color=ORANGE, lw=1.6, ls="--")
    _curve(axes, rounds, "accuracy", "mean weighted by test samples", color=BLUE, lw=2.6)
    axes.set_ylabel("accuracy (fraction right)")
    lowest = min((row["test_accuracy"] for row in metrics if row["test_accuracy"] is not None), default=0.0)
    axes.set_ylim(math.floor(10 * lowest) / 10 - 0.02, 1.02)
    return _finished(figure, axes, len(rounds))


def loss(rounds: Sequence[Json]) -> Figure:
    """Train and test loss against rounds."""
    figure, axes = _axes("Loss, weighted by samples")
    _curve(axes, rounds, "train_loss", "train, while training", color=ORANGE, lw=2.0)
    _curve(axes, rounds, "loss", "test, averaged model", color=BLUE, lw=2.6)
    axes.set_ylabel("cross entropy (nats)")
    highest = max((row[name] for row in rounds for name in ("train_loss", "loss") if row[name] is not None), default=1)
    axes.set_ylim(0, 1.05 * highest)
    return _finished(figure, axes, len(rounds))


def partition(class_counts: IntArray) -> Figure:
    """Train samples of each class that each client has, stacked."""
    clients, classes = class_counts.shape
    figure, axes = _axes("Train samples of each client by class")
    colours = _class_colours(classes)
    bottom = class_counts[:, 0] * 0
    for kind in range(classes):
        label = str(kind) if classes <= LEGEND_CLASSES else None
        axes.bar(range(clients), class_counts[:, kind], 0.8, bottom=bottom, color=colours(kind), label=label)
        bottom = bottom + class_counts[:, kind]
    axes.set_xlabel("client (number)")
    axes.set_ylabel("train samples")
    axes.set_xlim(-0.6, clients - 0.4)
    axes.xaxis.set_major_locator(_whole_numbers())
    axes.grid(axis="x", visible=False)
    if classes > LEGEND_CLASSES:
        scale = ScalarMappable(BoundaryNorm([kind - 0.5 for kind in range(classes + 1)], classes), colours)
        figure.colorbar(scale, ax=axes, label="class", ticks=_whole_numbers()).minorticks_off()
        return figure
    axes.legend(title="class", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, reverse=True)
    return figure


def timeline(rounds: Sequence[Json], metrics: Sequence[Json]) -> Figure:
    """When each client trained and evaluated, in wall time."""
    clients = sorted({row["client"] for row in metrics})
    figure, axes = _axes("What each client did when", height=max(SIZE_INCHES[1], min(9.0, 1.5 + 0.2 * len(clients))))
    # A run that was resumed without its records knows of some rounds only their evaluation.
    times = [row[name] for row in metrics for name in ("started_at", "eval_started_at") if row[name] is not None]
    began = min(times)
    for prefix, colour, label in (("", BLUE, "training"), ("eval_", ORANGE, "evaluation")):
        for place, client in enumerate(clients):
            rows = [row for row in metrics if row["client"] == client and row[f"{prefix}started_at"] is not None]
            spans = [(row[f"{prefix}started_at"] - began, row[f"{prefix}seconds"]) for row in rows]
            axes.broken_barh(spans, (place - 0.35, 0.7), color=colour, lw=0, label=None if place else label)
    for row in rounds:
        name = None if row["round"] else "end of a round"
        axes.axvline(row["ended_at"] - began, color=GREY, lw=0.6, zorder=0, label=name)
    axes.set_xlabel("wall time since the first task (s)")
    axes.set_ylabel("client (number)")
    axes.set_xlim(left=0)
    axes.set_ylim(len(clients) - 0.4, -0.6)
    axes.yaxis.set_major_locator(_whole_numbers())
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _axes(title: str, height: float = SIZE_INCHES[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
    axes: Axes = figure.subplots()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e7eb", lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _curve(axes: Axes, rounds: Sequence[Json], name: str, label: str, **style: Any) -> None:
    points = [(row["round"] + 1, row[name]) for row in rounds if row[name] is not None]
    # A marker while there are few points: a single one makes no line.
    marker = "o" if len(points) <= 30 else ""
    axes.plot(*zip(*points, strict=True), marker=marker, ms=4, label=label, **style)


def _finished(figure: Figure, axes: Axes, rounds: int) -> Figure:
    axes.set_xlabel("global rounds done")
    axes.set_xlim(0.5, rounds + 0.5)
    axes.xaxis.set_major_locator(_whole_numbers())
    # Outside of the axes, where no curve can run under it.
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(25, integer=True, min_n_ticks=1)


def _class_colours(classes: int) -> Colormap:
    return colormaps["tab10"] if classes <= 10 else colormaps["turbo"].resampled(classes)
