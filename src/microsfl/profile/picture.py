"""A picture of where a run's time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .report import phases
from .summary import SERVER_PHASES, WAITS, Profile

WIDTH_INCHES = 9.0
LEAST_INCHES = 3.2  # which the legend takes
BAR_INCHES = 0.22
DPI = 130
MOST_BARS = 40  # further ones would only make the others thinner

# Of a client: what it computes is blue, its waiting for split servers orange, for the fed server green, the rest grey.
SERVER_COLOURS = {
    "queue": "#b8b0d8",
    "decode": "#c9a0c0",
    "compute": "#a63d40",
    "store": "#e9b44c",
    "encode": "#d9879b",
}
COLOURS = {
    "data": "#9ecae1",
    "front": "#1f5fa8",
    "aux": "#4a86c5",
    "tail": "#6baed6",
    "turn": "#c3cad2",
    "waiting": "#f4a259",
    "hand-out": "#5a9e6f",
    "upload": "#9cc9a4",
    "other": "#8b95a1",
    "encode": "#fdd0a2",
    "wire": "#f4a259",
    "decode": "#fbe3c8",
    **{f"server {phase}": colour for phase, colour in SERVER_COLOURS.items()},
}
UNKNOWN = "#444444"

Kind = TypeVar("Kind")
Bars = Mapping[str, Mapping[str, float]]  # participant -> phase -> seconds


def draw(profile: Profile) -> Figure:
    """A stacked bar for each client while it trains, and one for each server; all rounds together.

    A client's waiting for the split servers is divided as the seconds of its requests are.
    """
    panels = [
        (bars, title)
        for bars, title in (
            (_of_clients(profile), "Clients while training"),
            (_of_servers(profile), "Servers, and how long requests waited for them"),
        )
        if bars
    ]
    heights = [0.6 + BAR_INCHES * len(bars) for bars, _ in panels]
    size = (WIDTH_INCHES, max(LEAST_INCHES, sum(heights) + 0.3))
    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    order = _order(profile)
    rows = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (bars, title) in zip(rows, panels, strict=True):
        _stack(axes, bars, order)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
    rows[-1].set_xlabel("seconds, all rounds together", fontsize=9)
    shown = [phase for phase in order if any(bar.get(phase) for bars, _ in panels for bar in bars.values())]
    patches = [Patch(color=COLOURS.get(phase, UNKNOWN), label=phase) for phase in shown]
    figure.legend(handles=patches, loc="outside right upper", frameon=False, fontsize=8, handlelength=1.0)
    return figure


def _of_clients(profile: Profile) -> Bars:
    waits = profile.waits()
    bars = {}
    for name, client in _some(profile.clients).items():
        bar = dict(client.training)
        if waits:
            waiting = bar.pop("waiting", 0.0)
            bar |= {part: share * waiting for part, share in waits.items()}
        bars[name] = bar
    return bars


def _of_servers(profile: Profile) -> Bars:
    return {
        name: {f"server {phase}": seconds for phase, seconds in server.phases.items()}
        for name, server in _some(profile.servers).items()
    }


def _order(profile: Profile) -> list[str]:
    """Phases as they are stacked: what a client waits for stands where its waiting would."""
    order: list[str] = []
    for phase in phases(profile):
        order += WAITS if phase == "waiting" else [phase]
    others = ["waiting", *(f"server {phase}" for phase in SERVER_PHASES)]
    return [*order, *(phase for phase in others if phase not in order)]


def _some(participants: Mapping[str, Kind]) -> dict[str, Kind]:
    """As many as can be told apart, evenly taken."""
    step = -(-len(participants) // MOST_BARS) or 1
    return dict(list(participants.items())[::step])


def _stack(axes: Axes, bars: Bars, order: Sequence[str]) -> None:
    left = dict.fromkeys(bars, 0.0)
    for phase in order:
        widths = [bars[name].get(phase, 0.0) for name in bars]
        if any(widths):
            axes.barh([*bars], widths, 0.75, left=[*left.values()], color=COLOURS.get(phase, UNKNOWN))
        left = {name: start + width for (name, start), width in zip(left.items(), widths, strict=True)}
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#e3e7eb", lw=0.8)
    axes.set_axisbelow(True)
