"""`microsfl plan` with what real processes take: two short runs of its own, or a run that is finished."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from microsfl.capacity.calibration import Calibration

CLIENTS = 3


def microsfl(*arguments: str) -> str:
    """What the command printed."""
    command = [sys.executable, "-m", "microsfl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_calibration_by_two_short_runs_is_enough_to_plan_with(tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    measured = json.loads(microsfl("plan", "--calibrate", str(file), "--json", "--set", "data.batch_size=16"))
    unit, round_ = Calibration.read(file).unit, Calibration.read(file).round
    assert unit.samples == 16
    for one in ("client_compute", "client", "server_compute", "server"):
        assert 0 < getattr(unit, one) < 1, one
    assert unit.client >= unit.client_compute
    assert unit.server >= unit.server_compute
    assert min(round_.coordinator, round_.turnaround, round_.sync, round_.reduce, round_.evaluation) > 0
    again = json.loads(microsfl("plan", "--calibration", str(file), "--json", "--set", "data.batch_size=16"))
    assert again == measured
    larger = json.loads(microsfl("plan", "--calibration", str(file), "--json", "--set", "data.batch_size=64"))
    assert larger["demands"]["server"] > measured["demands"]["server"]


def test_a_finished_run_is_predicted_as_it_was(tmp_path: Path) -> None:
    """Its bytes and files to what was counted, and its training to what its profile says, which it is fitted to."""
    folder = tmp_path / "run"
    microsfl("run", "--set", f"data.clients={CLIENTS}", "--set", "run.rounds=3", "--output", str(folder))
    flags = ["--set", f"data.clients={CLIENTS}", "--set", "run.rounds=3"]
    found = json.loads(microsfl("plan", "--from-run", str(folder), "--json", *flags))
    trained = _training_seconds(folder / "profile.csv")
    parts = found["parts_s"]
    assert parts["training"] + parts["exchange"] <= min(trained[1:]) * 1.1
    counted = _bytes(folder / "metrics.csv")
    volume = found["volume_of_a_round"]
    assert volume["requests"] == _requests(folder / "profile.csv")
    assert volume["up"] == pytest.approx(counted["bytes_up"], rel=0.1)
    units = counted["batches"]  # with a trainable front, a batch each
    assert units * found["demands"]["bytes_down"] == pytest.approx(counted["bytes_down"], rel=0.1)
    stored = [str(one.relative_to(folder)) for one in (folder / "store").rglob("*") if one.is_file()]
    of_round = ("/rounds/1/", "/body/2/", "/client/2/")  # whose sync makes version 2
    assert volume["files"] == sum(any(part in one for part in of_round) for one in stored)


def _training_seconds(profile: Path) -> list[float]:
    return [float(row["seconds"]) for row in _rows(profile) if row["phase"] == "training"]


def _requests(profile: Path) -> int:
    """Of the second round's training; the weights that it begins with were fetched for the evaluation before."""
    wanted = {("train", "split-requests"), ("train", "fed-requests"), ("evaluate", "fed-requests")}
    rows = [row for row in _rows(profile) if row["round"] == "1" and row["role"] == "request"]
    return sum(int(row["count"]) for row in rows if (row["task"], row["phase"]) in wanted)


def _bytes(metrics: Path) -> dict[str, int]:
    """Of the second round's training, all clients together."""
    found: defaultdict[str, int] = defaultdict(int)
    for row in _rows(metrics):
        if row["round"] == "1":
            for name in ("bytes_up", "bytes_down", "batches"):
                found[name] += int(row[name])
    return found


def _rows(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))
