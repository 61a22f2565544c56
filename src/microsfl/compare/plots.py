"""Accuracy and loss of every method, against what they cost. matplotlib is imported with this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from .execute import FINISHED
from .grid import Cell
from .markdown import group_title
from .report import mean, sample_std

SIZE_INCHES = (17.0, 8.4)
DPI = 110
GRID = "#e3e7eb"

# Okabe and Ito's colours, which stay apart for the colour-blind; the yellow is darker, to be seen on white.
COLOURS = {
    "filesync": "#0072B2", "sflv1": "#E69F00", "sflv2": "#009E73", "sl": "#CC79A7", "cse-fsl": "#D55E00",
    "fedavg": "#000000", "local": "#8A8A8A", "centralized": "#56B4E9",
}  # fmt: skip
SPARE = ("#7B5B00", "#5D3A9B", "#1B7837", "#A50026", "#40B0A6", "#4D4D4D")
# Whole models on the clients are dashed, so that the split strategies stand out.
DASHED = {"fedavg": (0, (5, 2)), "local": (0, (1, 1.5)), "centralized": (0, (5, 2, 1, 2))}
BELOW_THE_LOWEST = 0.25  # of the accuracies that methods end with; what is below is how they began
WIDE_RANGE = 6  # from the cheapest method to the dearest; above it an axis is logarithmic

# (title of the x axis, unit to go with a prefix, columns of a round that add up to it; none: the number of rounds)
COSTS = (
    ("global rounds done", None, ()),
    ("seconds of training and sync", None, ("seconds",)),
    ("bytes sent and received, all clients", "B", ("bytes_up", "bytes_down")),
    ("FLOPs of a client, on average", "", ("client_flops",)),
)
VALUES = (("accuracy", "test accuracy (fraction right)"), ("loss", "test loss (cross entropy, nats)"))

Json = dict[str, Any]
Curve = tuple[list[float], list[float], list[float]]


def write_plots(folder: Path, cells: Sequence[Cell], results: Mapping[str, Json]) -> list[Path]:
    """A picture for each kind of data, <partition>_c<clients>_<participants>.png; which were written."""
    folder.mkdir(exist_ok=True)
    colours = method_colours(cells)
    written = []
    for group in dict.fromkeys(cell.group for cell in cells):
        done = [cell for cell in cells if cell.group == group and results[cell.id]["state"] == FINISHED]
        if done:
            written.append(folder / f"{group[0]}_c{group[1]}_{group[2]}.png")
            picture(group_title(*group), done, results, colours).savefig(written[-1], dpi=DPI)
    return written


def method_colours(cells: Sequence[Cell]) -> dict[str, str]:
    """A colour for each method, the same in every picture: its strategy's, where no other method has it."""
    found: dict[str, str] = {}
    spare = list(SPARE)
    methods = {cell.method: cell.spec.strategy.name for cell in cells}
    for method in sorted(methods, key=lambda one: one not in COLOURS):
        own = COLOURS[methods[method]]
        found[method] = own if own not in found.values() else spare[len(found) % len(spare)]
    return found


def picture(title: str, cells: Sequence[Cell], results: Mapping[str, Json], colours: Mapping[str, str]) -> Figure:
    """Two rows of panels, accuracy and loss, against rounds, seconds, bytes and FLOPs: mean ± std over the seeds."""
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    panels = figure.subplots(len(VALUES), len(COSTS), sharey="row", sharex="col", squeeze=False)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    methods = list(dict.fromkeys(cell.method for cell in cells))
    for column, (name, unit, costs) in enumerate(COSTS):
        for row, (value, value_name) in enumerate(VALUES):
            axes: Axes = panels[row][column]
            found = {m: curve([results[c.id]["rounds"] for c in cells if c.method == m], value, costs) for m in methods}
            for method, one in found.items():
                _draw(axes, one, next(c for c in cells if c.method == method), colours[method])
            _x_axis(axes, list(found.values()), unit, rounds=not costs)
            _style(axes)
            if column == 0:
                axes.set_ylabel(value_name)
        panels[-1][column].set_xlabel(name)
    _limits(
        [row[0] for row in panels],
        [[curve([results[c.id]["rounds"]], value, ()) for c in cells] for value, _ in VALUES],
    )
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(8, len(labels)), frameon=False)
    return figure


def curve(seeds: Sequence[Sequence[Json]], value: str, costs: Sequence[str]) -> Curve:
    """x (summed costs, or rounds done), the mean over seeds, and its standard deviation (0 for one seed), by round."""
    xs, means, stds = [], [], []
    totals = [list(accumulate(sum(row[name] for name in costs) if costs else 1 for row in rows)) for rows in seeds]
    for number in range(min(len(rows) for rows in seeds)):
        values = [rows[number][value] for rows in seeds]
        middle = mean(values)
        if middle is not None:
            xs.append(mean(total[number] for total in totals) or 0.0)
            means.append(middle)
            stds.append(sample_std(values) or 0.0)
    return xs, means, stds


def _draw(axes: Axes, one: Curve, cell: Cell, colour: str) -> None:
    xs, means, stds = one
    style: dict[str, Any] = {"color": colour, "lw": 2.0, "ls": DASHED.get(cell.spec.strategy.name, "-")}
    if not xs:
        return
    if not xs[-1]:  # it costs nothing: a level, not a curve
        axes.axhline(means[-1], label=cell.label, **style)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8}
        axes.annotate(
            f"{cell.label}: nothing sent", (0.02, means[-1]), bbox={"fc": "white", "lw": 0, "pad": 1}, **place
        )
        return
    axes.plot(xs, means, label=cell.label, marker="o" if len(xs) <= 3 else "", ms=4, **style)
    if any(stds):
        # On a logarithmic axis a band has to end above 0.
        low, high = zip(*((max(m - s, m / 10), m + s) for m, s in zip(means, stds, strict=True)), strict=True)
        axes.fill_between(xs, low, high, color=colour, alpha=0.11, lw=0)


def _x_axis(axes: Axes, curves: Sequence[Curve], unit: str | None, *, rounds: bool) -> None:
    if rounds:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        return
    ends = [xs[-1] for xs, _, _ in curves if xs and xs[-1]]
    if ends and max(ends) > WIDE_RANGE * min(ends):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}") if unit is None else EngFormatter(unit))


def _limits(rows: Sequence[Axes], curves: Sequence[Sequence[Curve]]) -> None:
    """Where the differences are: the end of the accuracies, and all of the losses by their order of magnitude."""
    accuracy, loss = rows
    lowest = min((means[-1] for _, means, _ in curves[0] if means), default=0.0)
    accuracy.set_ylim(max(0.0, lowest - BELOW_THE_LOWEST), 1.01)
    if any(means for _, means, _ in curves[1]):
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        loss.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        loss.yaxis.set_minor_formatter(NullFormatter())


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
