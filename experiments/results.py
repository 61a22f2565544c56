"""From the output folder of a comparison to a page under docs/results/: a CSV file, plots, and the tables between the
page's markers.

    python -m experiments.results mnist            # the tables again, from the file that is there
    python -m experiments.results mnist FOLDER     # take over a folder of `microsfl compare` first

A test compares each page with its file.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

from experiments.pages import copy_plot, filled
from microsfl.compare.markdown import count, markdown_table, size

RESULTS = Path(__file__).parent.parent / "docs" / "results"
KEYS = ("partition", "participants", "method", "label")
ROUNDS = (1, 5, 10, 20, 50, 100)
SETTLED = 5  # rounds after which an accuracy that falls counts as oscillation

Row = dict[str, str]


def distilled(folder: Path) -> list[Row]:
    """A row for each method and kind of data: accuracies over the rounds, largest drop, costs; means over the seeds."""
    with (folder / "rounds.csv").open(encoding="utf-8") as file:
        of_cell: dict[str, list[Row]] = {}
        for one in csv.DictReader(file):
            of_cell.setdefault(one["id"], []).append(one)
    alike: dict[tuple[str, ...], list[list[Row]]] = {}
    for rows in of_cell.values():
        key = tuple(rows[0][name] for name in KEYS)
        alike.setdefault(key, []).append(rows)
    with (folder / "table.csv").open(encoding="utf-8") as file:
        table = {
            (row["partition"], row["participants"], row["method"], row["label"]): row for row in csv.DictReader(file)
        }
    return [_row(key, alike[key], table[key]) for key in table if key in alike]


def largest_drop(accuracies: Sequence[float]) -> float:
    """Of one round to the next, after the first few; negative when each was better than the one before."""
    settled = accuracies[SETTLED:]
    return max(before - after for before, after in pairwise(settled))


def _row(key: tuple[str, ...], cells: Sequence[Sequence[Row]], table: Row) -> Row:
    curves = [[float(one["accuracy"]) for one in rows] for rows in cells]
    last = [curve[-1] for curve in curves]
    at = {f"round_{n}": f"{mean(c[n - 1] for c in curves):.4f}" if len(curves[0]) >= n else "" for n in ROUNDS}
    return {
        **dict(zip(KEYS, key, strict=True)),
        "seeds": str(len(cells)),
        "rounds": str(len(curves[0])),
        **at,
        "accuracy": f"{mean(last):.4f}",
        "accuracy_std": f"{stdev(last):.4f}" if len(last) > 1 else "",
        "largest_drop": f"{mean(map(largest_drop, curves)):.4f}" if len(curves[0]) > SETTLED + 1 else "",
        "worst_client": f"{float(table['client_accuracy_min']):.4f}" if table["client_accuracy_min"] else "",
        "bytes_per_round": f"{float(table['bytes_up_per_round']) + float(table['bytes_down_per_round']):.0f}",
        "client_flops_per_round": f"{float(table['client_flops_per_round']):.0f}",
        "spared_share": f"{float(table['spared_share']):.4f}",
    }


def tables(rows: Sequence[Row], pictures: Path) -> str:
    """For each kind of data, the methods with their curves and costs, its plots, and the numbers of participants."""
    blocks = []
    for partition in dict.fromkeys(row["partition"] for row in rows):
        here = [row for row in rows if row["partition"] == partition]
        most = max((row["participants"] for row in here), key=_number)
        blocks.append(f"### {partition}, {_of(most)} in a round")
        blocks.append(_markdown(_line(row, here) for row in here if row["participants"] == most))
        plots = sorted(pictures.glob(f"{partition}_*.png"))
        blocks += [f"![accuracy and loss, {partition}]({pictures.name}/{plot.name})" for plot in plots]
        if len({row["participants"] for row in here}) > 1:
            blocks.append("Accuracy at the end, by clients that train in a round:")
            blocks.append(_markdown(_by_participants(here)))
    return "\n\n".join(blocks)


def _line(row: Row, here: Sequence[Row]) -> dict[str, str]:
    curve = {f"after {n}": row[f"round_{n}"][:5] or "–" for n in ROUNDS if any(one[f"round_{n}"] for one in here)}
    return {
        "method": row["label"],
        "rounds": row["rounds"],
        **curve,
        "accuracy": f"**{float(row['accuracy']):.4f}**" + (f" ± {row['accuracy_std']}" if row["accuracy_std"] else ""),
        "worst client": row["worst_client"][:5] or "–",
        "largest drop": row["largest_drop"] or "–",
        "bytes a round": size(float(row["bytes_per_round"])),
        "FLOPs of a client": count(float(row["client_flops_per_round"])),
        "spared": f"{100 * float(row['spared_share']):.0f} %",
    }


def _by_participants(here: Sequence[Row]) -> Iterable[dict[str, str]]:
    numbers = sorted({row["participants"] for row in here}, key=_number)
    for label in dict.fromkeys(row["label"] for row in here):
        found = {row["participants"]: row["accuracy"] for row in here if row["label"] == label}
        yield {"method": label, **{number: found.get(number, "–") for number in numbers}}


def _markdown(lines: Iterable[dict[str, str]]) -> str:
    lines = list(lines)
    return "\n".join(markdown_table(list(lines[0]), lines))


def _number(participants: str) -> float:
    return float("inf") if participants == "all" else float(participants)


def _of(participants: str) -> str:
    return "all clients" if participants == "all" else f"{participants} clients"


def page(name: str) -> str:
    """The page as its file has it. Raises ValueError when a marker is missing."""
    with (RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
        found = tables(list(csv.DictReader(file)), RESULTS / name)
    return filled((RESULTS / f"{name}.md").read_text("utf-8"), "results", found)


def take_over(name: str, folder: Path) -> None:
    """Write the CSV file, and copy the plots of most participants."""
    rows: Sequence[Mapping[str, str]] = distilled(folder)
    with (RESULTS / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    pictures = RESULTS / name
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir()
    participants = {row["participants"] for row in rows}
    wanted = "*.png" if len(participants) == 1 else f"*_{max(participants, key=_number)}.png"
    for plot in sorted((folder / "plots").glob(wanted)):
        copy_plot(plot, pictures / plot.name)


def main(arguments: Sequence[str]) -> None:
    name, *folders = arguments
    for folder in folders:
        take_over(name, Path(folder))
    (RESULTS / f"{name}.md").write_text(page(name), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
