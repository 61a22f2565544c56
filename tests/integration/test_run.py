"""`microsfl run`: real processes over real HTTP, the folder that they leave, and that none of them is ever left."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from microsfl.launch.profile_rows import read_rows
from microsfl.launch.run_folder import METRICS
from microsfl.launch.spec_file import read_spec
from microsfl.store.objects import open_store
from microsfl.sync.commits import Chain
from microsfl.wire.tensors import decode
from microsfl.zoo.parts import build_parts
from tests.integration.launched import DEADLINE_S, Finished, is_alive, pids, processes, run, start, states, until

PARTS = ("front", "body", "tail")
SMALL = ("--set", "servers.split=1", "--set", "data.clients=1", "--set", "data.partition=iid")
ENDLESS = ("--set", "run.rounds=100000")

OWN = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def net(input_shape, classes):
    print("a model may print")
    return nn.Sequential(nn.Linear(*input_shape, 6), nn.ReLU(), nn.Linear(6, classes))

def points():
    x = torch.linspace(-1, 1, 40).reshape(20, 2)
    return TensorDataset(x, (x[:, 0] > 0).long()), TensorDataset(x[:4], (x[:4, 0] > 0).long())
"""


def rows(done: Finished) -> list[dict[str, str]]:
    with (done.folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_is_complete(finished: Finished) -> None:
    files = {"run.toml", "summary.json", "metrics.csv", "profile.csv", "processes.json"}
    expected = {*files, "logs", "model", "plots", "store"}
    assert expected <= {entry.name for entry in finished.folder.iterdir()}
    assert {entry.stem for entry in (finished.folder / "model").iterdir()} == set(PARTS)
    plots = {entry.name: entry.read_bytes() for entry in (finished.folder / "plots").iterdir()}
    assert plots.keys() == {"accuracy.png", "loss.png", "partition.png", "timeline.png"}
    assert all(content.startswith(b"\x89PNG") for content in plots.values())


def test_the_summary_has_what_the_readme_promises_and_is_what_json_prints(finished: Finished) -> None:
    summary = finished.summary
    assert json.loads(finished.process.stdout) == summary
    settings = {"strategy": "filesync", "dataset": "digits", "clients": 5, "split_servers": 2, "rounds": 3, "seed": 0}
    assert settings.items() <= summary.items()
    assert [one["round"] for one in summary["history"]] == [0, 1, 2]
    assert summary["accuracy"] == summary["history"][-1]["accuracy"]
    assert summary["loss"] == summary["history"][-1]["loss"]
    assert 0 < sum(one["seconds"] for one in summary["history"]) <= summary["seconds"]
    assert summary["samples_per_s"] > 0
    assert summary["left_out"] == 0


def test_the_hashes_are_those_of_the_files_and_of_the_last_commit(finished: Finished) -> None:
    files = {part: (finished.folder / "model" / f"{part}.safetensors").read_bytes() for part in PARTS}
    hashes = {part: hashlib.sha256(content).hexdigest() for part, content in files.items()}
    assert finished.summary["weights_sha256"] == hashes
    store = open_store((finished.folder / "store" / "body").as_uri())
    assert Chain(store, "demo", "body").head().weights.sha256 == hashes["body"]


def test_the_model_fits_the_parts_of_the_specification(finished: Finished) -> None:
    parts = build_parts(read_spec(finished.folder / "run.toml"), ())
    for part in PARTS:
        content = (finished.folder / "model" / f"{part}.safetensors").read_bytes()
        getattr(parts, part).load_state_dict(decode(content).tensors)


def test_metrics_has_a_row_for_each_round_and_client(finished: Finished) -> None:
    table, summary = rows(finished), finished.summary
    assert tuple(table[0]) == METRICS
    clients = [f"client-{number:02}" for number in range(5)]
    assert [(int(row["round"]), row["client"]) for row in table] == [(r, c) for r in range(3) for c in clients]
    assert all(value for row in table for name, value in row.items() if name != "bytes_saved")  # of cse-fsl alone
    assert sum(int(row["samples"]) for row in table) == summary["samples"]
    assert sum(int(row["bytes_up"]) + int(row["eval_bytes_up"]) for row in table) == summary["bytes_up"]
    last = [(float(row["test_accuracy"]), int(row["test_samples"])) for row in table[-5:]]
    assert summary["accuracy"] == pytest.approx(sum(a * n for a, n in last) / sum(n for _, n in last))


def test_the_profile_has_where_every_second_of_a_client_went_and_every_request(finished: Finished) -> None:
    found: defaultdict[tuple[int, str, str], float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for row in read_rows(finished.folder):
        if row.role == "client":
            found[row.round, row.participant, row.task] += row.seconds or 0.0
        counts[row.phase if row.role == "request" else f"{row.role} {row.phase}"] += row.count or 0
    expected = {
        (int(row["round"]), row["client"], task): float(row[column])
        for row in rows(finished)
        for task, column in (("train", "seconds"), ("evaluate", "eval_seconds"))
    }
    assert found == pytest.approx(expected, abs=1e-4)
    closed = finished.summary["rounds"]  # by the coordinator
    assert counts["split-server requests"] == counts["split-requests"] + closed
    assert counts["fed-server requests"] == counts["fed-requests"] + closed
    units = counts["split-server hits"] + counts["split-server misses"]
    assert units == counts["split-requests"] / 2 - 5 * closed / 2  # two for each, and one to evaluate
    shown = subprocess.run(
        [sys.executable, "-m", "microsfl", "profile", str(finished.folder)], capture_output=True, text=True, check=True
    ).stdout
    assert all(name in shown for name in ("client-04", "split-server-1", "fed-server", "evaluation"))


def test_every_batch_is_a_contribution_in_one_commit_a_round(finished: Finished) -> None:
    assert finished.summary["commits"] == 3
    assert finished.summary["contributions"] == sum(int(row["batches"]) for row in rows(finished))


def test_the_written_specification_gives_the_same_run(finished: Finished) -> None:
    spec = read_spec(finished.folder / "run.toml")
    assert (spec.model.input_shape, spec.model.classes) == ((1, 8, 8), 10)
    assert spec.model_dump(mode="json") == finished.summary["spec"]


def test_no_process_is_left(finished: Finished) -> None:
    known = processes(finished.folder)
    assert [one["name"] for one in known if one["role"] != "client"] == [
        "coordinator", "split-server-0", "split-server-1", "fed-server",
    ]  # fmt: skip
    assert {(one["state"], one["exit_code"]) for one in known} == {("ended", 0)}
    assert not any(is_alive(one["pid"]) for one in known)
    assert all(one["address"].startswith("http://127.0.0.1:") for one in known if one["role"] != "client")
    assert {path.stem for path in (finished.folder / "logs").iterdir()} == {one["name"] for one in known}


def test_progress_is_a_line_a_round_where_there_is_no_terminal(finished: Finished) -> None:
    lines = finished.process.stderr.splitlines()
    what, _, where = lines[0].partition("; dashboard at ")
    assert what == "microsfl run 'demo': filesync on digits, 5 clients, 2 split servers"
    assert where == next(one["address"] for one in processes(finished.folder) if one["role"] == "coordinator")
    assert [line.split("  ")[0] for line in lines[1:]] == ["round 1/3", "round 2/3", "round 3/3"]


def test_a_folder_with_something_in_it_is_refused_and_kept(finished: Finished) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.folder.rglob("*"))
    again = run(finished.folder, "--set", "run.rounds=1").process
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith(f"microsfl: error: The run folder {finished.folder} is not empty")
    assert sorted((path, path.stat().st_mtime_ns) for path in finished.folder.rglob("*")) == before


def test_own_model_and_data_from_the_working_directory_with_a_vanilla_cut_and_a_frozen_front(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    settings = (
        "run.rounds=1", "data.dataset=own:points", "model.name=own:net", "model.u_shaped=false", 'model.cut=["0"]',
        "strategy.front_update=never",
    )  # fmt: skip
    done = run(tmp_path / "run", *SMALL, *(f"--set={one}" for one in settings), cwd=tmp_path)
    assert done.process.returncode == 0, done.process.stderr
    assert "client-00" in done.process.stdout
    model = {part: decode((tmp_path / "run" / "model" / f"{part}.safetensors").read_bytes()).tensors for part in PARTS}
    assert {part: sorted(tensors) for part, tensors in model.items()} == {
        "front": ["0.bias", "0.weight"], "body": ["2.bias", "2.weight"], "tail": [],
    }  # fmt: skip
    assert "a model may print" in (tmp_path / "run" / "logs" / "split-server-0.log").read_text()


def test_a_lost_process_is_started_again_and_ctrl_c_ends_them_all(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, *ENDLESS)
    lost = next(one for one in processes(folder) if one["name"] == "split-server-0")
    signal_to(lost["pid"], signal.SIGKILL)
    assert process.stderr is not None
    said = next(line for line in process.stderr if not line.startswith("round "))
    assert said == "split-server-0 ended with signal 9; started again (1 of 5 times)\n"
    assert next(process.stderr).startswith("round ")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert not any(is_alive(pid) for pid in pids(folder))
    assert states(processes(folder)) == {"ended"}
    assert status(folder) == "stopped"
    assert len((folder / "metrics.csv").read_text().splitlines()) > 1


@pytest.mark.slow
def test_a_killed_launcher_takes_every_process_along(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, *SMALL, *ENDLESS)
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    until(lambda: not any(is_alive(pid) for pid in pids(folder)), "the children end by themselves")


def test_a_run_that_cannot_go_on_ends_with_the_log_of_the_process_that_broke(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, *SMALL, *ENDLESS, "--set", "servers.restarts=0")
    signal_to(next(one["pid"] for one in processes(folder) if one["role"] == "fed-server"), signal.SIGTERM)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    error = said[said.index("microsfl: error: ") :]
    assert error.startswith("microsfl: error: fed-server ended with ")
    assert '"event": "stopping"' in error
    assert not any(is_alive(pid) for pid in pids(folder))


def signal_to(pid: int, number: int) -> None:
    os.kill(pid, number)


def status(folder: Path) -> str:
    """The run's status in the coordinator's records."""
    with sqlite3.connect(folder / "coordinator.db") as records:
        ((state,),) = records.execute("SELECT state FROM runs").fetchall()
    return str(json.loads(state)["status"])
