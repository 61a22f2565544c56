"""Puts the comparison on digits into README.md, between its markers, from docs/results/digits.csv.

    python -m experiments.digits             # from the file that is there
    python -m experiments.digits FOLDER      # from the output folder of `microsfl compare examples/compare-digits.toml`

The second form takes over the folder's table.csv and one of its plots first. A test compares README.md with the file.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.pages import copy_plot, filled
from microsfl.compare.markdown import count, markdown_table, size

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"
TABLE = RESULTS / "digits.csv"
SKEWED = "dirichlet-label-0.5"


def block() -> str:
    """The lines between the markers: accuracy for each kind of data, and the costs, which hardly depend on it."""
    with TABLE.open(encoding="utf-8") as file:
        found = {(row["partition"], row["label"]): row for row in csv.DictReader(file)}
    rows = [_line(found["iid", label], row) for (partition, label), row in found.items() if partition == SKEWED]
    return "\n".join(markdown_table(list(rows[0]), rows))


def updated(readme: str) -> str:
    """The README with the table as the file has it. Raises ValueError when a marker is missing."""
    return filled(readme, "compare", block())


def take_over(folder: Path) -> None:
    """Copy the table and the plot of skewed labels of a comparison."""
    RESULTS.mkdir(exist_ok=True)
    shutil.copyfile(folder / "table.csv", TABLE)
    (plot,) = (folder / "plots").glob(f"{SKEWED}_*.png")
    copy_plot(plot, RESULTS / "digits.png")


def _line(even: Mapping[str, str], skewed: Mapping[str, str]) -> dict[str, str]:
    def number(name: str) -> float:
        return float(skewed[name])

    return {
        "method": f"`{skewed['label']}`",
        "even data": _accuracy(even),
        "skewed labels": _accuracy(skewed),
        "worst client": f"{number('client_accuracy_min'):.3f}" if skewed["client_accuracy_min"] else "–",
        "bytes a round": size(number("bytes_up_per_round") + number("bytes_down_per_round")),
        "FLOPs of a client": count(number("client_flops_per_round")),
        "spared": f"{100 * number('spared_share'):.0f} %",
    }


def _accuracy(row: Mapping[str, str]) -> str:
    return f"{float(row['accuracy']):.3f} ± {float(row['accuracy_std']):.3f}"


def main(arguments: Sequence[str]) -> None:
    for folder in arguments[:1]:
        take_over(Path(folder))
    README.write_text(updated(README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
