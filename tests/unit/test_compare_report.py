"""FLOPs by hand, a round's measures, and the arithmetic of tables and plots, from results made by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from microsfl.compare.config import parse_comparison
from microsfl.compare.flops import Flops, count_flops, sent_samples
from microsfl.compare.folder import CompareFolder
from microsfl.compare.grid import Cell, cells
from microsfl.compare.markdown import count, readable, to_markdown
from microsfl.compare.measures import diverged_in, round_rows, spared_share
from microsfl.compare.plots import COLOURS, curve, method_colours, write_plots
from microsfl.compare.report import TABLE_COLUMNS, cell_rows, long_rows, table_rows
from microsfl.spec import RunSpec
from microsfl.zoo.parts import build_parts, client_side

Json = dict[str, Any]

# mlp on digits: fc1 64 -> 64 | fc2 64 -> 64 | fc3 64 -> 10. A product of 64 x n weights is 2 * 64 * n operations; a
# backward has two of them, but only one where the input takes no gradient.
FC1, FC2, FC3 = 2 * 64 * 64, 2 * 64 * 64, 2 * 64 * 10
AUX = 2 * 64 * 10


def resolved(**tables: Json) -> RunSpec:
    return RunSpec.parse(tables).resolved(input_shape=(1, 8, 8), classes=10)


def flops_of(spec: RunSpec) -> Flops:
    parts = build_parts(spec, [])
    return count_flops(spec, parts, client_side(spec, parts).get("aux"))


WHOLE = 2 * FC1 + 3 * FC2 + 3 * FC3
BY_HAND: dict[str, tuple[dict[str, Json], Flops]] = {
    "u-shaped": ({}, Flops(2 * FC1 + 3 * FC3, 0, 3 * FC2, WHOLE)),
    "vanilla": ({"model": {"u_shaped": False}}, Flops(2 * FC1, 0, 3 * FC2 + 3 * FC3, WHOLE)),
    "frozen front": (
        {"strategy": {"front_update": "never"}}, Flops(FC1 + 3 * FC3, 0, 2 * FC2, FC1 + 2 * FC2 + 3 * FC3)
    ),
    "front once a round": ({"strategy": {"front_update": "round"}}, Flops(2 * FC1 + 3 * FC3, 0, 3 * FC2, WHOLE)),
    # The first layer's input takes no gradient: it is the data.
    "whole model": ({"strategy": {"name": "fedavg"}}, Flops(WHOLE, 0, 0, WHOLE)),
    # The front learns from the auxiliary head, and no gradient leaves the body.
    "auxiliary": (
        {"strategy": {"name": "cse-fsl"}}, Flops(2 * FC1 + 3 * AUX, 3 * FC3, 2 * FC2, WHOLE)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_flops_are_those_counted_by_hand(case: str) -> None:
    tables, expected = BY_HAND[case]
    assert flops_of(resolved(**tables)) == expected


def test_batch_normalization_and_convolutions_are_counted() -> None:
    spec = resolved(model={"name": "resnet18"})
    found = flops_of(spec)
    assert found.whole == pytest.approx(found.per_batch + found.server)
    # The stem is 9 products for each of 64 channels at each of 8 x 8 places, forward and for its weights; the head
    # 512 x 10, forward, for its weights and for its input.
    assert found.per_batch == 2 * (2 * 9 * 64 * 64) + 3 * (2 * 512 * 10)


def test_the_spared_share_and_what_an_auxiliary_head_sends() -> None:
    assert Flops(20, 0, 60, 80).spared(7, 7) == 0.75
    assert Flops(80, 0, 0, 80).spared(7, 0) == 0.0
    assert Flops(20, 40, 60, 80).spared(samples=100, sent=10) == 1 - 2400 / 8000
    assert Flops(1, 0, 1, 2).spared(0, 0) == 0.0
    spec = resolved(strategy={"name": "cse-fsl", "send_every": 3, "local_epochs": 2}, data={"batch_size": 10})
    # Two epochs of 10 + 10 + 10 + 5 samples: the batches 0, 3 and 6 are sent.
    assert sent_samples(spec, 70) == 10 + 5 + 10
    assert sent_samples(resolved(), 70) == 70
    assert sent_samples(resolved(strategy={"name": "local"}), 70) == 0


def metrics_row(round_: int, client: str, **values: Any) -> Json:
    row = {
        "round": round_, "client": client, "samples": 10, "bytes_up": 100, "bytes_down": 50, "eval_bytes_up": 7,
        "eval_bytes_down": 3, "test_accuracy": 0.5, "test_loss": 1.0, "test_samples": 4, "bytes_saved": None,
    }  # fmt: skip
    return {**row, **values}


def round_row(number: int) -> Json:
    return {
        "round": number, "accuracy": 0.6, "accuracy_mean": 0.5, "loss": 1.5, "train_loss": float("inf"), "seconds": 2.0,
    }  # fmt: skip


def test_a_round_s_measures() -> None:
    spec = resolved(data={"clients": 2})
    metrics = [
        metrics_row(0, "a", test_accuracy=0.2),
        metrics_row(0, "b", test_accuracy=0.8, samples=30),
        metrics_row(1, "a", test_accuracy=None, samples=None, bytes_up=None, bytes_saved=5),
        metrics_row(1, "b", test_accuracy=0.9),
    ]
    flops = Flops(2, 0, 10, 12)
    first, second = round_rows(spec, [round_row(1), round_row(0)], metrics, flops)
    assert (first["round"], second["round"]) == (0, 1)
    assert first["accuracy_std"] == pytest.approx(0.3)
    assert (first["accuracy_min"], first["accuracy_max"]) == (0.2, 0.8)
    assert (first["samples"], first["bytes_up"], first["bytes_down"]) == (40, 214, 106)
    assert (first["client_flops"], first["server_flops"]) == (2 * 40 / 2, 400)
    assert (first["train_loss"], first["bytes_saved"], second["bytes_saved"]) == (None, None, 5)
    assert (second["accuracy_std"], second["samples"], second["bytes_up"]) == (None, 10, 114)
    assert spared_share(spec, metrics, flops) == pytest.approx(1 - 2 / 12)
    assert diverged_in(metrics) is None
    assert diverged_in([*metrics, metrics_row(1, "c", test_loss=None)]) == 1
    assert diverged_in([metrics_row(0, "c", test_loss=None, test_samples=0)]) is None


def grid(**compare: Any) -> list[Cell]:
    return cells(parse_comparison({"run": {"rounds": 2}, "compare": {"methods": ["sl", "fedavg"], **compare}}))


def result(cell: Cell, accuracies: list[float], **values: Any) -> Json:
    def row(number: int, accuracy: float) -> Json:
        return {
            "round": number, "accuracy": accuracy, "accuracy_mean": accuracy, "accuracy_std": 0.1,
            "accuracy_min": accuracy - 0.1, "accuracy_max": accuracy + 0.1, "loss": 1 - accuracy, "train_loss": 1.0,
            "samples": 100, "seconds": 3.0, "bytes_up": 10, "bytes_down": 20, "bytes_saved": None,
            "client_flops": 5e6, "server_flops": 2e9, **values,
        }  # fmt: skip

    rows = [row(number, accuracy) for number, accuracy in enumerate(accuracies)]
    return {"id": cell.id, "state": "finished", "reason": None, "rounds": rows, "spared_share": 0.5}


def diverged(cell: Cell) -> Json:
    return {"id": cell.id, "state": "diverged", "reason": "not finite", "rounds": [], "spared_share": None}


def test_the_table_has_means_and_spread_over_the_seeds_that_finished() -> None:
    found = grid(partitions=["iid", "shards"], seeds=[0, 1, 2])
    curves = {0: [0.9, 0.7], 1: [0.2, 0.8], 2: [0.5, 0.9]}
    results = {cell.id: result(cell, curves[cell.seed]) for cell in found}
    lost = next(cell for cell in found if (cell.method, cell.partition, cell.seed) == ("fedavg", "shards-2", 2))
    results[lost.id] = diverged(lost)
    rows = table_rows(found, results, 0.85)
    assert [(row["partition"], row["method"]) for row in rows] == [
        ("iid", "sl"), ("iid", "fedavg"), ("shards-2", "sl"), ("shards-2", "fedavg"),
    ]  # fmt: skip
    first, last = rows[0], rows[-1]
    assert set(first) == set(TABLE_COLUMNS)
    assert first["accuracy"] == pytest.approx(0.8)
    assert first["accuracy_std"] == pytest.approx(0.1)  # of 0.7, 0.8, 0.9, with n - 1
    assert first["best_accuracy"] == pytest.approx((0.9 + 0.8 + 0.9) / 3)
    assert (first["target_reached"], first["rounds_to_target"]) == (2, pytest.approx(1.5))
    assert (first["bytes_up_per_round"], first["bytes_down_per_round"], first["seconds"]) == (10, 20, 6)
    assert (first["client_flops_per_round"], first["server_flops_per_round"]) == (5e6, 2e9)
    assert (first["state"], last["state"]) == ("finished", "diverged")
    assert (last["seeds"], last["unfinished"], last["accuracy"]) == (2, 1, pytest.approx(0.75))
    shown = readable(first)
    assert (shown["accuracy"], shown["client FLOPs"], shown["spared"]) == ("0.800 ± 0.100", "5 M", "50 %")
    assert shown["rounds to 0.85"] == "1.5 (2 of 3 seeds)"
    assert readable(last)["accuracy"] == "0.750 ± 0.071 (1 diverged)"
    assert len(cell_rows(found, results, None)) == 12
    assert len(long_rows(found, results)) == 11 * 2


def test_one_seed_has_no_spread_and_a_method_without_any_says_so() -> None:
    sl, fedavg = grid(seeds=[4])
    results = {sl.id: result(sl, [0.5]), fedavg.id: diverged(fedavg)}
    rows = table_rows([sl, fedavg], results, 0.9)
    assert [readable(row)["accuracy"] for row in rows] == ["0.500", "diverged"]
    assert readable(rows[0])["rounds to 0.9"] == "never"
    text = to_markdown([sl, fedavg], rows, results, "simulated")
    assert "| fedavg | diverged | – |" in text
    assert "- sl (sl): 2 rounds, batches of 32, body_optimizer Adam(lr=0.02), client_optimizer SGD(lr=0.2)\n" in text
    assert "- fedavg (fedavg): 2 rounds, batches of 32, client_optimizer SGD(lr=0.2)\n" in text
    assert "- fedavg, dirichlet-label-0.5, 5 clients, seed 4: diverged: not finite" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "-"))) <= 120


def test_numbers_are_short() -> None:
    assert [count(value) for value in (None, 0, 999, 12_345, 4.5e6, 7.89e9, 1e13)] == [
        "–", "0", "999", "12.3 k", "4.5 M", "7.89 G", "10 T",
    ]  # fmt: skip


def test_csv_files_have_an_empty_field_where_there_is_no_value(tmp_path: Path) -> None:
    found = grid(seeds=[0])
    results = {cell.id: diverged(cell) for cell in found}
    folder = CompareFolder(tmp_path, {})
    folder.write_rows("table.csv", TABLE_COLUMNS, table_rows(found, results, None))
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["accuracy"], row["seeds"]) for row in rows] == [("sl", "", "0"), ("fedavg", "", "0")]


def test_a_curve_adds_up_costs_and_averages_seeds() -> None:
    found = grid(methods=["sl"], seeds=[0, 1])
    rows = [
        result(cell, accuracies)["rounds"] for cell, accuracies in zip(found, ([0.2, 0.4], [0.4, 0.4]), strict=True)
    ]
    xs, means, stds = curve(rows, "accuracy", ("bytes_up", "bytes_down"))
    assert xs == [30, 60]
    assert means == pytest.approx([0.3, 0.4])
    assert stds == pytest.approx([0.02**0.5, 0])
    assert curve(rows, "accuracy", ())[0] == [1, 2]


def test_pictures_are_written_for_each_kind_of_data_with_a_colour_for_each_method(tmp_path: Path) -> None:
    table = {"mine": {"strategy": {"name": "filesync"}}, "other": {"strategy": {"name": "filesync"}}}
    found = grid(methods=["mine", "other", "filesync", "local"], method=table, clients=[2, 3], seeds=[0])
    colours = method_colours(found)
    assert len(set(colours.values())) == 4
    assert colours["filesync"] == COLOURS["filesync"]
    results = {
        cell.id: result(cell, [0.1, 0.2], **({"bytes_up": 0, "bytes_down": 0} if cell.method == "local" else {}))
        for cell in found
    }
    results |= {cell.id: diverged(cell) for cell in found if cell.method == "mine"}
    written = write_plots(tmp_path / "plots", found, results)
    assert [path.name for path in written] == [
        "dirichlet-label-0.5_c2_all.png", "dirichlet-label-0.5_c3_all.png",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert write_plots(tmp_path / "none", found, {cell.id: diverged(cell) for cell in found}) == []
