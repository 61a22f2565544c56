"""Law 5 on real processes: after everything died, `microsfl resume` goes on and repeats no finished round."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.sync.commits import Chain
from tests.integration.launched import DEADLINE_S, Finished, pids, run, start, until

# Long enough to be interrupted in the middle: about two seconds of training.
SETTINGS = ["--set", "run.rounds=6", "--set", "data.batch_size=8", "--set", "strategy.client_optimizer.momentum=0.5"]
SETTINGS += ["--set", "strategy.client_optimizer.lr=0.05"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    done = run(tmp_path_factory.mktemp("undisturbed") / "run", *SETTINGS, "--json")
    assert done.process.returncode == 0, done.process.stderr
    return done


def resume(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "microsfl", "resume", target, "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def chain(folder: Path) -> Chain:
    return Chain(open_store(f"file://{folder}/store/body"), "demo", keys.BODY)


def interrupted(folder: Path, number: signal.Signals) -> dict[str, bytes]:
    """Begin the run, end it after its second round; the commits that it had made by then."""
    process = start(folder, *SETTINGS)
    until(lambda: chain(folder).head().version >= 2, "two rounds are committed")
    known = pids(folder)
    process.send_signal(number)
    if number is signal.SIGKILL:
        for pid in known:
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=DEADLINE_S)
    return commits(folder)


def commits(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("store/*/runs/demo/*/*/commit.json")
    }


def accuracies(summary: dict[str, Any]) -> list[float]:
    return [row["accuracy"] for row in summary["history"]]


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_law_5_in_its_run_folder(number: signal.Signals, undisturbed: Finished, tmp_path: Path) -> None:
    """After SIGKILL of every process, and after Ctrl-C."""
    folder = tmp_path / "run"
    before = interrupted(folder, number)
    done = resume(str(folder))
    assert done.returncode == 0, done.stderr
    summary = Finished(folder, done).summary
    assert summary["weights_sha256"] == undisturbed.summary["weights_sha256"]
    assert [row["round"] for row in summary["history"]] == list(range(6))
    assert [row["accuracy"] for row in summary["history"]] == [
        row["accuracy"] for row in undisturbed.summary["history"]
    ]
    assert before.items() <= commits(folder).items()
    assert summary["commits"] == 6


@pytest.mark.slow
def test_law_5_from_the_store_alone(undisturbed: Finished, tmp_path: Path) -> None:
    """On another machine: no database, no run folder, only the files of the store."""
    before = interrupted(tmp_path / "run", signal.SIGKILL)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(tmp_path / "run" / "store", elsewhere / "store")
    shutil.rmtree(tmp_path / "run")
    done = resume(f"file://{elsewhere}/store", "--output", str(tmp_path / "resumed"))
    assert done.returncode == 0, done.stderr
    summary = Finished(tmp_path / "resumed", done).summary
    assert summary["weights_sha256"] == undisturbed.summary["weights_sha256"]
    assert summary["accuracy"] == undisturbed.summary["accuracy"]
    assert before.items() <= commits(elsewhere).items()
    assert summary["commits"] == 6


def test_a_finished_run_has_nothing_to_resume(undisturbed: Finished) -> None:
    before = commits(undisturbed.folder)
    done = resume(str(undisturbed.folder))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "microsfl: error: Run 'demo' is finished; there is nothing to resume."
    assert commits(undisturbed.folder) == before
    assert (undisturbed.folder / "summary.json").exists()


@pytest.mark.slow
def test_a_store_that_was_tampered_with_is_refused_and_named(tmp_path: Path) -> None:
    """The newest weights file has other content than its commit says: nothing is trained on it."""
    folder = tmp_path / "run"
    interrupted(folder, signal.SIGKILL)
    head = chain(folder).head()
    open_store(f"file://{folder}/store/body").put(head.weights.key, b"{}")
    done = resume(str(folder))
    assert done.returncode == 1
    assert head.weights.sha256 in done.stderr
    assert "Traceback" not in done.stderr
    assert chain(folder).head().version == head.version
