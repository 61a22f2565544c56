"""A real run watched from other terminals: `status --follow`, `logs --follow`, `runs`, and every exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.integration.launched import DEADLINE_S, processes, start

SMALL = ("--set", "servers.split=1", "--set", "data.clients=2")
ENDLESS = ("--set", "run.rounds=100000")

Json = dict[str, Any]


def microsfl(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "microsfl", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


@contextmanager
def watching(cwd: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on, from its first line on."""
    command = [sys.executable, "-m", "microsfl", *arguments]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline(), process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def coordinator_of(folder: Path) -> str:
    return next(str(one["address"]) for one in processes(folder) if one["role"] == "coordinator")


@pytest.mark.slow
def test_a_run_is_followed_to_its_end_and_seen_at_its_coordinator(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "watched"
    run = start(folder, *SMALL, "--set", "run.rounds=25")
    try:
        with (
            watching(tmp_path, "status", "watched", "--follow", "--json") as status,
            watching(tmp_path, "logs", "watched", "--follow", "--json") as logs,
        ):
            url = coordinator_of(folder)
            listed = microsfl(tmp_path, "runs", "--coordinator", url, "--json")
            elsewhere = microsfl(tmp_path / "runs", "logs", "demo", "--coordinator", url)
            seen, _ = status.communicate(timeout=DEADLINE_S)
            said, _ = logs.communicate(timeout=DEADLINE_S)
            run.communicate(timeout=DEADLINE_S)
        assert (run.returncode, status.returncode, logs.returncode) == (0, 0, 0)
    finally:
        run.kill()
        run.communicate()
    changes = [json.loads(line) for line in seen.splitlines()]
    assert changes[-1]["state"] == "finished"
    assert [one["round"] for one in changes[-1]["history"]] == list(range(25))
    assert all(len(a["history"]) <= len(b["history"]) for a, b in pairwise(changes))
    doing = {one["doing"] for change in changes for one in change["participants"] if one["role"] == "client"}
    assert doing & {"training", "evaluating", "done"}
    ends = [json.loads(line) for line in said.splitlines()]
    assert {one["process"] for one in ends if one["event"] == "stopping"} >= {"coordinator", "split-server-0"}
    assert any(one["event"] == "run" and one["state"] == "finished" for one in ends)
    assert listed.returncode == 0, listed.stderr
    rows: list[Json] = json.loads(listed.stdout)["runs"]
    assert {(row["name"], row["coordinator"], row["folder"]) for row in rows} == {
        ("demo", url, None),
        ("demo", None, "runs/watched"),
    }
    assert elsewhere.returncode == 2
    assert f"known to the coordinator at {url}" in elsewhere.stderr
    assert "on the machines where its roles run" in elsewhere.stderr


@pytest.mark.slow
def test_signals_and_a_stopped_run_have_their_exit_codes(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "endless"
    run = start(folder, *SMALL, *ENDLESS)
    try:
        for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):  # a shell says 143
            with watching(tmp_path, "status", "endless", "--follow", "--json") as status:
                status.send_signal(sent)
                status.communicate(timeout=DEADLINE_S)
                assert status.returncode == code
        with watching(tmp_path, "logs", "endless", "--follow") as logs:
            logs.send_signal(signal.SIGINT)
            logs.communicate(timeout=DEADLINE_S)
            assert logs.returncode == 130
        with watching(tmp_path, "status", "endless", "--follow", "--json") as status:
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=DEADLINE_S)
            seen, _ = status.communicate(timeout=DEADLINE_S)
            assert (run.returncode, status.returncode) == (143, 1)
        assert json.loads(seen.splitlines()[-1])["state"] == "stopped"
    finally:
        run.kill()
        run.communicate()
    again = microsfl(tmp_path, "status", "endless")
    assert again.returncode == 0
    assert "microsfl resume" in again.stdout


@pytest.mark.slow
def test_the_processes_of_a_killed_run_are_gone_and_it_is_called_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "killed"
    run = start(folder, *SMALL, *ENDLESS)
    try:
        with watching(tmp_path, "status", "killed", "--follow", "--json") as status:
            run.kill()
            run.communicate()
            seen, _ = status.communicate(timeout=DEADLINE_S)
    finally:
        run.kill()
    assert status.returncode == 1
    assert json.loads(seen.splitlines()[-1])["state"] == "interrupted"


def test_a_role_that_is_told_to_end_has_done_what_it_should(tmp_path: Path) -> None:
    records = f"sqlite:///{tmp_path}/records.db"
    for sent in (signal.SIGTERM, signal.SIGINT):
        with watching(tmp_path, "coordinator", "--port=0", "--records-url", records) as coordinator:
            coordinator.send_signal(sent)
            coordinator.communicate(timeout=DEADLINE_S)
            assert coordinator.returncode == 0
