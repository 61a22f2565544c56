"""The picture of an audit. matplotlib is imported with this module, so import it when a picture is wanted."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from .attacks import Inverted
from .finished import Samples

COLUMNS = 12
CELL_INCHES = 0.85
MARGIN_INCHES = 1.9
DPI = 130


def write_grid(file: Path, victims: Samples, inverted: list[Inverted]) -> None:
    """A row of originals and one of each case's reconstructions of them, as PNG; the victims' samples are images."""
    chosen = spread_over_classes(victims.y, COLUMNS)
    rows = [("original", victims.x[chosen])]
    rows += [(f"{one.name}\n{_figures(one)}", one.reconstructed[chosen]) for one in inverted]
    low, high = float(victims.x.min()), float(victims.x.max())
    size = (MARGIN_INCHES + CELL_INCHES * len(chosen), (CELL_INCHES + 0.05) * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle("What an inversion attack makes of the smashed data", x=0.01, ha="left", fontweight="bold")
    grid = figure.subplots(len(rows), len(chosen), squeeze=False)
    for (label, images), axes in zip(rows, grid, strict=True):
        for axis, image in zip(axes, images, strict=True):
            axis.imshow(_pixels(image, low, high), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
    figure.savefig(file, dpi=DPI)


def spread_over_classes(labels: Tensor, count: int) -> list[int]:
    """Positions of at most `count` samples: the first of each class in turn, then the second, and so on, by class."""
    turns: dict[int, int] = {}
    keyed = []
    for place, kind in enumerate(labels.tolist()):
        turns[kind] = turns.get(kind, -1) + 1
        keyed.append((turns[kind], kind, place))
    return [place for _, _, place in sorted(keyed)[:count]]


def _figures(one: Inverted) -> str:
    similarity = "" if one.quality.ssim is None else f"\nSSIM {one.quality.ssim:.2f}"
    return f"MSE {one.quality.mse:.4f}{similarity}"


def _pixels(image: Tensor, low: float, high: float):  # type: ignore[no-untyped-def]
    """[h, w] or [h, w, 3] in 0 … 1, as matplotlib takes it."""
    scaled = ((image.cpu() - low) / (high - low or 1.0)).clamp(0, 1)
    if scaled.ndim == 2:
        return scaled.numpy()
    return scaled[0].numpy() if len(scaled) == 1 else scaled.permute(1, 2, 0).numpy()
