"""From the cells' results to the rows of table.csv: mean and spread over the seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from .execute import FINISHED
from .grid import Cell
from .measures import ROUND_COLUMNS

Json = dict[str, Any]

KEYS = ("method", "label", "strategy", "partition", "clients", "participants")
TABLE_COLUMNS = (
    *KEYS, "rounds", "seeds", "unfinished", "state", "accuracy", "accuracy_std", "best_accuracy", "best_accuracy_std",
    "loss", "loss_std", "client_accuracy_std", "client_accuracy_min", "target_accuracy", "target_reached",
    "rounds_to_target", "bytes_up_per_round", "bytes_down_per_round", "bytes_saved_per_round", "client_flops_per_round",
    "server_flops_per_round", "spared_share", "seconds", "seconds_std",
)  # fmt: skip
CELL_COLUMNS = (
    "id", *KEYS, "seed", "state", "reason", "rounds", "accuracy", "best_accuracy", "loss", "client_accuracy_std",
    "client_accuracy_min", "client_accuracy_max", "rounds_to_target", "bytes_up", "bytes_down", "client_flops",
    "server_flops", "spared_share", "seconds",
)  # fmt: skip
LONG_COLUMNS = ("id", *KEYS, "seed", *ROUND_COLUMNS)

Results = Mapping[str, Json]


def table_rows(cells: Sequence[Cell], results: Results, target: float | None) -> list[Json]:
    """A row for each method and kind of data, in the order of `cells`: means over the seeds that finished.

    `*_std` is the standard deviation over seeds (of a sample, n - 1; None with fewer than two), except
    `client_accuracy_std`: the spread over the clients of a run, which is then averaged over seeds. `state` is that of
    the first cell that did not finish, where there is one.
    """
    alike: dict[tuple[str, tuple[str, int, str]], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.method, cell.group), []).append(cell)
    rows = [_table_row(group, results, target) for group in alike.values()]
    order = list(dict.fromkeys(cell.group for cell in cells))
    return sorted(rows, key=lambda row: order.index((row["partition"], row["clients"], row["participants"])))


def cell_rows(cells: Sequence[Cell], results: Results, target: float | None) -> list[Json]:
    """A row for each cell, as in cells.csv; None stands for what a cell that did not finish has not."""
    return [_cell_row(cell, results[cell.id], target) for cell in cells]


def long_rows(cells: Sequence[Cell], results: Results) -> list[Json]:
    """A row for each cell and round, as in rounds.csv."""
    return [
        {"id": cell.id, **_keys(cell), "seed": cell.seed, **row} for cell in cells for row in results[cell.id]["rounds"]
    ]


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that there are."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def sample_std(values: Iterable[float | None]) -> float | None:
    """Standard deviation with n - 1; None for fewer than two values."""
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


def _table_row(cells: Sequence[Cell], results: Results, target: float | None) -> Json:
    done = [_cell_row(cell, results[cell.id], target) for cell in cells if results[cell.id]["state"] == FINISHED]
    reached = [row["rounds_to_target"] for row in done if row["rounds_to_target"] is not None]
    spread = ("accuracy", "best_accuracy", "loss", "seconds")
    plain = (*spread, "client_accuracy_std", "client_accuracy_min", "spared_share")
    per_round = ("bytes_up", "bytes_down", "bytes_saved", "client_flops", "server_flops")
    return {
        **_keys(cells[0]),
        "rounds": cells[0].spec.run.rounds,
        "seeds": len(done),
        "unfinished": len(cells) - len(done),
        "state": next((results[cell.id]["state"] for cell in cells if results[cell.id]["state"] != FINISHED), FINISHED),
        **{name: mean(row[name] for row in done) for name in plain},
        **{f"{name}_std": sample_std(row[name] for row in done) for name in spread},
        **{
            f"{name}_per_round": mean(None if row[name] is None else row[name] / row["rounds"] for row in done)
            for name in per_round
        },
        "target_accuracy": target,
        "target_reached": None if target is None else len(reached),
        "rounds_to_target": mean(reached),
    }


def _cell_row(cell: Cell, result: Json, target: float | None) -> Json:
    rounds: list[Json] = result["rounds"]
    row: Json = dict.fromkeys([*CELL_COLUMNS, "bytes_saved"])
    row |= {"id": cell.id, **_keys(cell), "seed": cell.seed, "state": result["state"], "reason": result["reason"]}
    if not rounds:
        return row
    last = rounds[-1]
    accuracies = [(one["accuracy"], one["round"]) for one in rounds if one["accuracy"] is not None]
    row |= {
        "rounds": len(rounds),
        "accuracy": last["accuracy"],
        "best_accuracy": max((value for value, _ in accuracies), default=None),
        "loss": last["loss"],
        "rounds_to_target": next((number + 1 for value, number in accuracies if target and value >= target), None),
        "spared_share": result["spared_share"],
    }
    row |= {f"client_accuracy_{name}": last[f"accuracy_{name}"] for name in ("std", "min", "max")}
    for name in ("bytes_up", "bytes_down", "client_flops", "server_flops", "seconds"):
        row[name] = sum(one[name] for one in rounds)
    saved = [one["bytes_saved"] for one in rounds if one["bytes_saved"] is not None]
    return {**row, "bytes_saved": sum(saved) if saved else None}


def _keys(cell: Cell) -> Json:
    return {
        "method": cell.method,
        "label": cell.label,
        "strategy": cell.spec.strategy.name,
        "partition": cell.partition,
        "clients": cell.clients,
        "participants": str(cell.participants),
    }
