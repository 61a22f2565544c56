"""What is made of a run that is over: summary, table, plots; and how clients are spread over processes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microsfl.launch.federation import client_groups
from microsfl.launch.plots import write_plots
from microsfl.launch.summary import settled_by, settled_in, summarize
from microsfl.launch.table import print_results
from microsfl.spec import RunSpec
from microsfl.sync.commits import Commit, File, LeftOut, Taken
from microsfl.zoo.deal import client_ids

Json = dict[str, Any]
MODEL = {"front": b"f", "body": b"b", "tail": b""}
FILE = File(key="runs/demo/body/1/weights-0.safetensors", sha256="0" * 64, size_bytes=1)


def a_round(number: int, **values: Any) -> Json:
    row = {
        "round": number, "accuracy": 0.5, "accuracy_mean": 0.4, "loss": 1.0, "train_loss": 1.2, "samples": 30,
        "seconds": 2.0, "samples_per_s": 15.0, "started_at": 100.0 + 10 * number, "ended_at": 105.0 + 10 * number,
    }  # fmt: skip
    return {**row, **values}


def metrics_row(round_: int, client: int, **values: Any) -> Json:
    row = {
        "round": round_, "client": f"client-{client:02}", "train_loss": 1.0, "samples": 10, "batches": 2,
        "seconds": 1.0, "bytes_up": 100, "bytes_down": 50, "started_at": 100.0 + 10 * round_, "test_loss": 1.0,
        "test_accuracy": 0.5, "test_samples": 4, "eval_seconds": 0.5, "eval_bytes_up": 7, "eval_bytes_down": 3,
        "eval_started_at": 103.0 + 10 * round_,
    }  # fmt: skip
    return {**row, **values}


def commit(version: int, units: int, left_out: int = 0) -> Commit:
    taken = tuple(Taken(client="a", unit=i, batches=1, samples=5, version=version - 1) for i in range(units))
    left = tuple(LeftOut(client="b", unit=i, reason="too old") for i in range(left_out))
    return Commit(version=version, parent=version - 1, weights=FILE, contributions=taken, left_out=left)


def summary_of(rounds: list[Json], metrics: list[Json], spec: RunSpec | None = None) -> Json:
    return summarize(spec or RunSpec(), rounds, metrics, settled_by([commit(1, 3), commit(2, 4, left_out=2)]), MODEL)


def test_the_coordinator_s_rows_tell_the_commits_when_there_was_one_a_round() -> None:
    rows = [a_round(n, body_version=n + 1, contributions=3 + n, left_out=n) for n in range(2)]
    assert settled_in(rows) == settled_by([commit(1, 3), commit(2, 4, left_out=1)])
    several = settled_in([a_round(0, body_version=5, contributions=1, left_out=0)])
    assert (several.commits, several.contributions, several.left_out) == (5, None, None)


def test_the_summary_counts_rounds_commits_and_traffic() -> None:
    metrics = [metrics_row(r, c) for r in range(2) for c in range(3)]
    summary = summary_of([a_round(0), a_round(1, accuracy=0.75)], metrics)
    assert (summary["accuracy"], summary["rounds"], summary["samples"]) == (0.75, 2, 60)
    assert (summary["seconds"], summary["samples_per_s"]) == (15.0, 15.0)
    assert (summary["bytes_up"], summary["bytes_down"]) == (6 * 107, 6 * 53)
    assert (summary["commits"], summary["contributions"], summary["left_out"]) == (2, 7, 2)
    assert [one["round"] for one in summary["history"]] == [0, 1]
    assert summary["weights_sha256"].keys() == MODEL.keys()


def test_a_mean_over_nothing_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {"accuracy": None, "accuracy_mean": None, "loss": None}
    rows = [metrics_row(0, 0, test_loss=None, test_accuracy=None, test_samples=0)]
    summary = summary_of([a_round(0, **nothing)], rows)
    assert json.loads(json.dumps(summary, allow_nan=False))["accuracy"] is None
    print_results(summary, rows, Path("/run/folder"))
    assert "accuracy     – (mean over clients –)" in capsys.readouterr().out


def test_what_a_strategy_does_not_have_is_not_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a cut there are no commits; a client that was not drawn has no samples; without weights no hashes."""
    spec = RunSpec.parse({"run": {"participants": 1}, "data": {"clients": 2}, "strategy": {"name": "fedavg"}})
    idle = dict.fromkeys(("train_loss", "samples", "batches", "seconds", "bytes_up", "bytes_down", "started_at"))
    metrics = [metrics_row(0, 0), metrics_row(0, 1, **idle)]
    summary = summarize(spec, [a_round(0)], metrics, settled_by([]), {})
    assert (summary["split_servers"], summary["participants"], summary["weights_sha256"]) == (0, 1, {})
    print_results(summary, metrics, Path("/run/folder"))
    printed = capsys.readouterr().out
    assert "commits" not in printed
    assert "weights" not in printed
    assert next(line for line in printed.splitlines() if "client-01" in line).split()[1:3] == ["–", "4"]
    write_plots(tmp_path / "plots", [a_round(0)], metrics, np.ones((2, 2), dtype=np.int64))


def test_bytes_saved_are_told_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    spec = RunSpec.parse({"strategy": {"name": "cse-fsl"}})
    metrics = [metrics_row(0, 0, bytes_saved=1500), metrics_row(0, 1, bytes_saved=None)]
    summary = summary_of([a_round(0)], metrics, spec)
    assert summary["bytes_saved"] == 1500
    print_results(summary, metrics, Path("/run/folder"))
    assert "1.5 kB that were not sent" in capsys.readouterr().out


def test_the_table_has_a_row_for_each_client_of_the_last_round(capsys: pytest.CaptureFixture[str]) -> None:
    spec = RunSpec.parse({"data": {"clients": 40}, "strategy": {"local_epochs": 2}})
    metrics = [metrics_row(r, c, samples=10 * (r + 1)) for r in range(2) for c in range(40)]
    print_results(summary_of([a_round(0), a_round(1)], metrics, spec), metrics, Path("/run/folder"))
    printed = capsys.readouterr().out
    assert "client-29" in printed
    assert "client-30" not in printed
    assert "… 10 more in metrics.csv" in printed
    assert next(line for line in printed.splitlines() if line.split()[:1] == ["all"]).split()[1:3] == ["400", "160"]
    assert "2 of 7 contributions, 2 left out" in printed
    assert "/run/folder" in printed


@pytest.mark.parametrize(
    ("rounds", "clients", "classes"),
    [(1, 1, 2), (3, 20, 10), (40, 30, 30)],
)
def test_plots_of_any_size_are_written(rounds: int, clients: int, classes: int, tmp_path: Path) -> None:
    history = [a_round(r) for r in range(rounds)]
    metrics = [metrics_row(r, c) for r in range(rounds) for c in range(clients)]
    metrics[0].update(test_accuracy=None, test_loss=None, test_samples=0)
    write_plots(tmp_path / "plots", history, metrics, np.ones((clients, classes), dtype=np.int64))
    for name in ("accuracy", "loss", "partition", "timeline"):
        content = (tmp_path / "plots" / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert width > 700
        assert height > 400


def test_plots_of_a_run_that_nobody_could_test(tmp_path: Path) -> None:
    nothing = {"accuracy": None, "accuracy_mean": None, "loss": None}
    rows = [metrics_row(0, 0, test_accuracy=None, test_loss=None, eval_started_at=None, eval_seconds=None)]
    write_plots(tmp_path / "plots", [a_round(0, **nothing)], rows, np.ones((1, 2), dtype=np.int64))
    assert (tmp_path / "plots" / "accuracy.png").exists()


@pytest.mark.parametrize("count", [1, 5, 100, 101])
def test_client_ids_sort_in_their_order(count: int) -> None:
    ids = client_ids(count)
    assert len(set(ids)) == count
    assert sorted(ids) == list(ids)
    assert ids[0] == ("client-000" if count > 100 else "client-00")


@pytest.mark.parametrize(
    ("clients", "per_process", "sizes"), [(5, 2, [2, 2, 1]), (5, 1, [1] * 5), (5, 9, [5]), (7, 3, [3, 2, 2])]
)
def test_clients_are_spread_evenly_over_processes(clients: int, per_process: int, sizes: list[int]) -> None:
    spec = RunSpec.parse({"data": {"clients": clients}, "servers": {"clients_per_process": per_process}})
    groups = client_groups(spec)
    assert [len(group) for group in groups] == sizes
    assert sorted(one for group in groups for one in group) == list(client_ids(clients))


def test_auto_starts_no_more_client_processes_than_cores_or_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microsfl.launch.federation.cores", lambda: 3)
    for clients, processes in ((1, 1), (2, 2), (20, 3)):
        assert len(client_groups(RunSpec.parse({"data": {"clients": clients}}))) == processes
