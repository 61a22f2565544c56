"""Puts the cost of the formats in accuracy into docs/concepts/wire-formats.md, from docs/results/formats.csv.

    python -m experiments.formats                  # from the file that is there
    python -m experiments.formats NAME=FOLDER …    # take over output folders of `microsfl compare` first

NAME is that of a configuration in this folder; the file keeps the rows of those that are not named. A test compares the
page with the file.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from experiments.pages import filled
from microsfl.compare.markdown import markdown_table, size

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "concepts" / "wire-formats.md"
TABLE = ROOT / "docs" / "results" / "formats.csv"
COLUMNS = (
    "data", "label", "seeds", "rounds", "accuracy", "accuracy_std", "difference", "difference_std", "bytes_per_round"
)  # fmt: skip
TITLES = {
    "digits": "digits: 5 clients, skewed labels, `mlp`",
    "mnist": "MNIST: 20 clients, skewed labels, `linear-front`",
    "shards": "MNIST: 10 clients, two classes each, `cnn`",
}
BASE = "float32"

Row = Mapping[str, str]


def distilled(name: str, folder: Path) -> list[Row]:
    """A row for each format: means over the seeds, and the difference to float32 with the same seed."""
    with (folder / "cells.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    accuracy = {(cell["label"], cell["seed"]): float(cell["accuracy"]) for cell in cells}
    rows = []
    for label in dict.fromkeys(cell["label"] for cell in cells):
        alike = [cell for cell in cells if cell["label"] == label]
        found = [accuracy[label, cell["seed"]] for cell in alike]
        differences = [accuracy[label, cell["seed"]] - accuracy[BASE, cell["seed"]] for cell in alike]
        moved = [(int(cell["bytes_up"]) + int(cell["bytes_down"])) / int(cell["rounds"]) for cell in alike]
        values = (mean(found), stdev(found), mean(differences), stdev(differences))
        numbers = (f"{value:.4f}" for value in values)
        row = (name, label, str(len(alike)), alike[0]["rounds"], *numbers, f"{mean(moved):.0f}")
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def tables(rows: Sequence[Row]) -> str:
    """A table for each data set."""
    blocks = []
    for name, title in TITLES.items():
        here = [row for row in rows if row["data"] == name]
        if here:
            base = next(float(row["bytes_per_round"]) for row in here if row["label"] == BASE)
            blocks.append(f"{title}; {here[0]['rounds']} rounds, {here[0]['seeds']} seeds.")
            lines = [_line(row, base) for row in here]
            blocks.append("\n".join(markdown_table(list(lines[0]), lines)))
    return "\n\n".join(blocks)


def _line(row: Row, base: float) -> Row:
    moved = float(row["bytes_per_round"])
    difference = f"{100 * float(row['difference']):+.2f} ± {100 * float(row['difference_std']):.2f}"
    return {
        "format": row["label"],
        "accuracy": f"{float(row['accuracy']):.4f} ± {float(row['accuracy_std']):.4f}",
        "points more than float32": "" if row["label"] == BASE else difference,
        "bytes a round": size(moved),
        "ratio": f"{moved / base:.2f}",
    }


def page() -> str:
    """The page as its file has it. Raises ValueError when a marker is missing."""
    with TABLE.open(encoding="utf-8") as file:
        found = tables(list(csv.DictReader(file)))
    return filled(PAGE.read_text("utf-8"), "formats", found)


def take_over(folders: Mapping[str, Path]) -> None:
    """Write the rows of these comparisons, and keep those of the others."""
    rows: list[Row] = []
    if TABLE.exists():
        with TABLE.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["data"] not in folders]
    for name, folder in folders.items():
        rows += distilled(name, folder)
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: [*TITLES].index(row["data"])))


def main(arguments: Sequence[str]) -> None:
    if arguments:
        take_over({name: Path(folder) for name, _, folder in (one.partition("=") for one in arguments)})
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
