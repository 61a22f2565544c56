"""`microsfl.run` and `microsfl.load_run`: what a notebook does with runs."""

from __future__ import annotations

import builtins
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import microsfl
from microsfl.core.partition import Share
from microsfl.errors import InvalidSetting, StoreCorrupt, UnknownSetting
from microsfl.launch.rehearsal import rehearse
from microsfl.zoo.datasets import load_data, take

from . import launched

SHORT = {"run.rounds": 2, "data.clients": 3}
CASES: dict[str, dict[str, Any]] = {
    "filesync": {},
    "vanilla": {"model.u_shaped": False},
    "sflv1": {"strategy.name": "sflv1"},
    "sl": {"strategy.name": "sl"},
    "cse-fsl": {"strategy.name": "cse-fsl"},
    "fedavg": {"strategy.name": "fedavg"},
    "centralized": {"strategy.name": "centralized"},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> microsfl.Run:
    return microsfl.run(set=SHORT, simulate=True, output=tmp_path_factory.mktemp("notebook") / "run")


def accuracy(model: torch.nn.Module, run: microsfl.Run, shares: list[Share]) -> float:
    """Over the test samples of all clients."""
    data = load_data(run.spec.data.dataset, run.spec.data.path)
    x, y = take(data.test, np.sort(np.concatenate([share.test for share in shares])))
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_the_model_has_the_accuracy_of_the_summary(settings: dict[str, Any], tmp_path: Path) -> None:
    run = microsfl.run(set={**SHORT, **settings}, simulate=True, output=tmp_path / "run")
    model = microsfl.load_run(run.path).model()
    assert not model.training
    assert accuracy(model, run, rehearse(run.spec).shares) == pytest.approx(run.accuracy, abs=1e-6)
    fresh = rehearse(run.spec).parts.joined().eval()
    assert accuracy(fresh, run, rehearse(run.spec).shares) != pytest.approx(run.accuracy, abs=1e-3)  # training did it


def test_real_processes_give_what_the_simulation_gives(done: microsfl.Run, tmp_path: Path) -> None:
    run = microsfl.run(done.spec, output=tmp_path / "run")
    assert run.summary["simulated"] is False
    assert run.summary["weights_sha256"] == done.summary["weights_sha256"]


def test_tables_are_data_frames_and_say_what_the_files_say(done: microsfl.Run) -> None:
    assert done.metrics.equals(pandas.DataFrame(done.metrics.to_dict("records")))
    read = pandas.read_csv(done.path / "metrics.csv")
    assert list(done.metrics.columns) == list(read.columns)
    pandas.testing.assert_frame_equal(done.metrics.dropna(axis=1), read.dropna(axis=1))
    assert len(done.metrics) == 2 * 3
    assert list(done.rounds["accuracy"]) == [one["accuracy"] for one in done.summary["history"]]
    assert {"client", "coordinator"} & set(done.profile["role"])


def test_without_pandas_tables_are_lists(done: microsfl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *more)

    framed = done.metrics
    monkeypatch.setattr(builtins, "__import__", without)
    assert [row["test_accuracy"] for row in done.metrics] == list(framed["test_accuracy"])
    assert done.metrics[0]["client"] == "client-00"
    assert done.metrics[0]["bytes_saved"] is None


@pytest.mark.parametrize("what", ["accuracy", "loss", "partition", "timeline"])
def test_plots(done: microsfl.Run, what: str, tmp_path: Path) -> None:
    figure = done.plot(what)
    assert figure.axes[0].get_title(loc="left")
    figure.savefig(tmp_path / "plot.png")
    if what == "partition":
        heights = sum(bar.get_height() for bar in figure.axes[0].patches)
        assert heights == sum(len(share.train) for share in rehearse(done.spec).shares)


def test_what_a_notebook_shows_is_text(done: microsfl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(done.summary, "strategy", "<script>")
    assert "&lt;script&gt;" in done._repr_html_()
    assert "<script>" not in done._repr_html_()
    assert repr(done).startswith("<Run 'demo': accuracy 0.")


def test_settings_go_on_top(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[run]\nrounds = 7\nname = 'mine'\n")
    from microsfl.finished.training import specification

    for given in (tmp_path / "run.toml", str(tmp_path / "run.toml"), {"run": {"rounds": 7, "name": "mine"}}):
        spec = specification(given, {"run.rounds": 3})
        assert (spec.run.rounds, spec.run.name) == (3, "mine")
    assert specification(spec, {"strategy.sync": 4}).strategy.sync == 4


@pytest.mark.parametrize(
    ("spec", "settings", "error", "says"),
    [
        (None, {"run.rounds": 0}, InvalidSetting, "run.rounds"),
        (None, {"run.round": 1}, UnknownSetting, "run.round"),
        (None, {"rounds.": 1}, InvalidSetting, "table.key"),
        ("nowhere.toml", {}, InvalidSetting, "nowhere.toml"),
    ],
)
def test_wrong_settings_are_named(spec: Any, settings: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        microsfl.run(spec, set=settings)


def test_folders_that_are_no_finished_run_are_named(done: microsfl.Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"no run\.toml"):
        microsfl.load_run(tmp_path)
    (tmp_path / "run.toml").write_text((done.path / "run.toml").read_text())
    with pytest.raises(InvalidSetting, match="microsfl resume"):
        microsfl.load_run(tmp_path)
    (tmp_path / "summary.json").write_text((done.path / "summary.json").read_text())
    with pytest.raises(StoreCorrupt, match=r"front\.safetensors is missing"):
        microsfl.load_run(tmp_path).model()
    shutil.copytree(done.path / "model", tmp_path / "model")
    microsfl.load_run(tmp_path).model()
    shutil.copy(done.path / "model" / "tail.safetensors", tmp_path / "model" / "body.safetensors")
    with pytest.raises(StoreCorrupt, match=r"body\.safetensors .*is not what the run wrote"):
        microsfl.load_run(tmp_path).model()
    with pytest.raises(InvalidSetting, match=r"metrics\.csv"):
        _ = microsfl.load_run(tmp_path).metrics
    with pytest.raises(InvalidSetting, match="There is no plot 'curve'"):
        done.plot("curve")


def test_weights_that_stay_with_the_clients_are_no_model(tmp_path: Path) -> None:
    run = microsfl.run(set={**SHORT, "strategy.name": "local"}, simulate=True, output=tmp_path / "run")
    with pytest.raises(InvalidSetting, match="stay with the clients"):
        run.model()


CELL = """
import sys
import microsfl
try:
    microsfl.run(set={'run.rounds': 10000}, output='run')
except KeyboardInterrupt as error:
    kept = error  # as a notebook keeps it, and with it every object of the run
print('interrupted', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs what a cell of a notebook has, catches the interruption as a notebook does, and lives on."""
    process = subprocess.Popen(
        [sys.executable, "-c", CELL],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        launched.until(lambda: process.poll() is not None or launched.all_up(tmp_path / "run"), "every process is up")
        yield process
        process.kill()


def started_by(pid: int) -> set[int]:
    """The processes below this one, without those that ended and that nobody has waited for."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found, new = set[int](), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return set(filter(launched.is_alive, found))


def test_an_interrupted_cell_leaves_no_process(cell: subprocess.Popen[str], tmp_path: Path) -> None:
    children = started_by(cell.pid)
    assert children > set(launched.pids(tmp_path / "run"))  # and the fork server
    cell.send_signal(signal.SIGINT)
    assert cell.stdout is not None
    assert cell.stdout.readline() == "interrupted\n"
    launched.until(lambda: not any(map(launched.is_alive, children)), "every process has ended")
    assert cell.poll() is None


def test_who_cannot_wait_for_the_end_of_processes_leaves_none(tmp_path: Path) -> None:
    """As a second interruption does it, while the first one ends what was begun."""
    code = """
import sys
from microsfl.launch import kept, processes
def impatient(children):
    kept.terminate(children)
    raise KeyboardInterrupt
processes.end = impatient
"""
    with subprocess.Popen(
        [sys.executable, "-c", code + CELL],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as cell:
        launched.until(lambda: cell.poll() is not None or launched.all_up(tmp_path / "run"), "every process is up")
        children = started_by(cell.pid)
        cell.send_signal(signal.SIGINT)
        assert cell.stdout is not None
        assert cell.stdout.readline() == "interrupted\n"
        launched.until(lambda: not any(map(launched.is_alive, children)), "every process has ended")
        cell.kill()
