"""`microsfl compare` with real simulations: what it leaves, where it goes on, and what it makes of failures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from microsfl import simulate as simulation
from microsfl.cli import main
from microsfl.compare import execute
from microsfl.launch import training

Values = dict[str, Any]

BASE: Values = {"run": {"rounds": 1}, "data": {"clients": 2, "batch_size": 128}}

# A data set of the user's own. The first worker process that asks for it dies; this process, and later workers, get it.
DIES_ONCE = """
import multiprocessing, os, pathlib, torch
from torch.utils.data import TensorDataset

def load():
    if multiprocessing.parent_process() is not None:
        try:
            (pathlib.Path(__file__).parent / "died").mkdir()
        except FileExistsError:
            pass
        else:
            os._exit(7)
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y = x[:, :2].argmax(1)
    return TensorDataset(x[:40], y[:40]), TensorDataset(x[40:], y[40:])
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were simulated in this process."""
    names: list[str] = []

    def counted(spec: Any, **options: Any) -> Any:
        names.append(spec.run.name)
        return real(spec, **options)

    real = simulation.simulate
    monkeypatch.setattr(simulation, "simulate", counted)
    return names


def compare(compare: Values, *flags: str, **base: Values) -> int:
    Path("compare.toml").write_text(tomli_w.dumps({**BASE, **base, "compare": {"seeds": [0], **compare}}))
    with pytest.raises(SystemExit) as end:
        main(["compare", "compare.toml", "--output=out", *(flags or ["--jobs=1"])])
    return int(end.value.code or 0)


def rows(name: str) -> list[dict[str, str]]:
    with (Path("out") / name).open() as file:
        return list(csv.DictReader(file))


def test_every_strategy_side_by_side(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare({"target_accuracy": 0.01}) == 0
    printed = capsys.readouterr()
    assert "cse-fsl" in printed.out
    assert "8/8  centralized, dirichlet-label-0.5, 2 clients, seed 0: accuracy" in printed.err
    table = {row["method"]: row for row in rows("table.csv")}
    assert len(table) == 8
    assert {float(row["accuracy"]) > 0 for row in table.values()} == {True}
    assert {row["rounds_to_target"] for row in table.values()} == {"1.0"}
    spared = {name: float(row["spared_share"]) for name, row in table.items()}
    assert {name for name, share in spared.items() if share == 0} == {"fedavg", "local", "centralized"}
    assert {spared[name] for name in ("filesync", "sflv1", "sflv2", "sl")} == {24576 / 44800}
    assert 0 < spared["cse-fsl"] < 24576 / 44800
    assert float(table["local"]["bytes_up_per_round"]) == 0
    assert float(table["cse-fsl"]["bytes_saved_per_round"]) > 0
    assert table["centralized"]["client_accuracy_std"] == ""
    # All have trained on the same samples.
    assert len({row["samples"] for row in rows("rounds.csv")}) == 1
    assert len(rows("cells.csv")) == 8
    assert [path.name for path in (here / "out/plots").iterdir()] == ["dirichlet-label-0.5_c2_all.png"]
    metrics = rows("cells/filesync_dirichlet-label-0.5_c2_all_s0/metrics.csv")
    assert [row["client"] for row in metrics] == ["client-00", "client-01"]


def test_as_json_the_tables_are_those_of_the_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare({"methods": ["local", "fedavg"]}, "--jobs=1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(here / "out")
    for name in ("table", "cells"):
        assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in said[name]] == rows(
            f"{name}.csv"
        )


def test_it_goes_on_where_it_was_and_a_half_written_result_counts_for_nothing(
    here: Path, simulated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"methods": ["fedavg", "local"], "seeds": [0, 1]}
    over = execute.round_rows

    def interrupted(*arguments: Any) -> Any:
        if len(simulated) == 3:
            raise KeyboardInterrupt
        return over(*arguments)

    monkeypatch.setattr(execute, "round_rows", interrupted)
    assert compare(asked) == 130
    done = sorted(path.parent.name for path in (here / "out").rglob("result.json"))
    assert done == sorted(simulated[:2])
    assert not (here / "out" / "table.md").exists()
    half = here / "out/cells" / done[0] / "result.json"
    half.write_text(half.read_text()[:-20])
    monkeypatch.setattr(execute, "round_rows", over)
    before, simulated[:] = list(simulated), []
    assert compare(asked) == 0
    assert sorted(simulated) == sorted({done[0], before[2], "local_dirichlet-label-0.5_c2_all_s1"})
    table, simulated[:] = (here / "out" / "table.csv").read_text(), []
    assert compare(asked) == 0
    assert simulated == []
    assert (here / "out" / "table.csv").read_text() == table


def test_another_comparison_in_the_folder_is_refused_by_name(
    here: Path, simulated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare({"methods": ["local"]}) == 0
    for asked, base, words in (
        ({"methods": ["local"], "seeds": [0, 1]}, {}, "compare.seeds is [0] there and [0, 1] here"),
        ({"methods": ["local"]}, {"strategy": {"local_epochs": 2}}, "strategy is not set there"),
    ):
        capsys.readouterr()
        assert compare(asked, **base) == 2  # type: ignore[arg-type]
        assert words in capsys.readouterr().err
    assert compare({"methods": ["local"]}, "--services") == 2
    assert 'how is "simulated" there and "services" here' in capsys.readouterr().err
    (here / "out/compare.json").unlink()
    assert compare({"methods": ["local"]}) == 2
    assert "holds no comparison" in capsys.readouterr().err
    assert len(simulated) == 1


def test_a_cell_that_diverges_is_reported_and_the_others_go_on(
    here: Path, simulated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {
        "methods": ["bomb", "local"],
        "method": {"bomb": {"label": "too fast", "strategy": {"client_optimizer": {"lr": 1e30}}}},
    }
    assert compare(asked) == 0
    printed = capsys.readouterr()
    assert "not finished: too fast, dirichlet-label-0.5, 2 clients, seed 0: diverged: The training loss" in printed.out
    bomb, local = rows("cells.csv")
    assert (bomb["state"], bomb["accuracy"], local["state"]) == ("diverged", "", "finished")
    assert "finite" in bomb["reason"]
    assert "diverged" in (here / "out/table.md").read_text()
    # It would diverge again.
    simulated.clear()
    assert compare(asked) == 0
    assert simulated == []


def test_one_is_the_exit_code_when_nothing_finished() -> None:
    bomb = {"strategy": {"name": "local", "client_optimizer": {"lr": 1e30}}}
    assert compare({"methods": ["bomb"], "method": {"bomb": bomb}}) == 1
    assert rows("table.csv")[0]["state"] == "diverged"


def test_whatever_is_wrong_with_any_cell_is_said_before_one_runs(
    here: Path, simulated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"methods": ["local", "mine"], "method": {"mine": {"model": {"cut": ["fc1", "fc9"]}}}}
    assert compare(wrong) == 2
    assert "mine, dirichlet-label-0.5, 2 clients, seed 0: model.cut names 'fc9'" in capsys.readouterr().err
    assert compare({"clients": [2, 5000]}) == 2
    assert "5000 clients, seed 0: data.clients = 5000 is more than" in capsys.readouterr().err
    assert compare({"methods": ["local"]}, "--services", "--jobs=2") == 2
    assert "--jobs is for simulations" in capsys.readouterr().err
    assert simulated == []
    assert not (here / "out").exists()


def test_a_worker_that_dies_costs_its_cell_alone_which_is_run_again_the_next_time(here: Path) -> None:
    (here / "dies_once.py").write_text(DIES_ONCE)
    base = {"data": {"dataset": "dies_once:load", "clients": 2}, "run": {"rounds": 2}}
    asked = {"methods": ["fedavg", "local", "filesync"]}
    assert compare(asked, "--jobs=2", **base) == 0
    states = {row["method"]: (row["state"], row["reason"]) for row in rows("cells.csv")}
    assert sorted(states.values()) == [("failed", "its process ended with exit code 7"), *[("finished", "")] * 2]
    assert compare(asked, "--jobs=2", **base) == 0
    in_workers = rows("cells.csv")
    assert {row["state"] for row in in_workers} == {"finished"}
    # In this process it comes to the same, but for the time that it takes.
    for path in (here / "out/cells").iterdir():
        (path / "result.json").unlink()
    assert compare(asked, "--jobs=1", **base) == 0
    timeless = [[{**row, "seconds": ""} for row in found] for found in (in_workers, rows("cells.csv"))]
    assert timeless[0] == timeless[1]


def test_the_folder_says_what_was_asked(here: Path) -> None:
    assert compare({"methods": ["local"]}, "--jobs=1", "--set=compare.seeds=[3]") == 0
    asked = json.loads((here / "out/compare.json").read_text())
    assert asked == {"how": "simulated", **BASE, "compare": {"methods": ["local"], "seeds": [3]}}


def test_with_services_each_cell_has_a_fresh_run_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def train(spec: Any, folder: Path) -> tuple[Values, list[Values], Path]:
        assert not folder.exists()
        folders.append(folder)
        done = simulation.simulate(spec)
        return {"history": done.rounds}, done.metrics, folder

    monkeypatch.setattr(training, "train", train)
    left = here / "out/cells/local_dirichlet-label-0.5_c2_all_s0/run"
    assert compare({"methods": ["local"]}) == 0
    timeless = [{**row, "seconds": ""} for row in rows("cells.csv")]
    (here / "out").rename("simulated")
    assert compare({"methods": ["local", "longer"], "method": {"longer": {"run": {"rounds": 2}}}}, "--services") == 0
    assert {**rows("cells.csv")[0], "seconds": ""} == timeless[0]
    assert folders == [left, left.parent.with_name("longer_dirichlet-label-0.5_c2_all_s0") / "run"]
    (left.parent / "result.json").unlink()
    (left / "logs").mkdir(parents=True)
    assert compare({"methods": ["local", "longer"], "method": {"longer": {"run": {"rounds": 2}}}}, "--services") == 0
    assert folders[2:] == [left]


def test_what_is_the_same_work_is_done_once(simulated: list[str]) -> None:
    """One client with the data of all does the same however the others divide them."""
    partitions = ["iid", {"partition": "dirichlet-label", "alpha": 0.5}]
    assert compare({"methods": ["fedavg", "centralized"], "partitions": partitions, "clients": [2, 3]}) == 0
    assert len(simulated) == 4 + 1
    accuracies = {row["accuracy"] for row in rows("cells.csv") if row["method"] == "centralized"}
    assert len(accuracies) == 1
    assert len(rows("cells.csv")) == 8
