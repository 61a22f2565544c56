"""`--track`: what is written for TensorBoard and MLflow, read back and held against the run folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microsfl.cli import cli
from microsfl.errors import InvalidSetting, NotFinite, OperationError
from microsfl.launch.training import train as train_with_services
from microsfl.simulate.training import train
from microsfl.spec import RunSpec
from microsfl.tracking import TRACKERS
from microsfl.tracking.follower import Follower
from microsfl.tracking.rows import NOT_FIGURES, ROUND, Figures, without_secrets
from microsfl.tracking.tracker import Patient

Scalars = dict[tuple[str, int], float]


def spec_of(rounds: int = 2, **strategy: Any) -> RunSpec:
    run = {"name": "tracked", "rounds": rounds}
    return RunSpec.parse({"run": run, "data": {"clients": 2}, "strategy": {"name": "fedavg", **strategy}})


def expected(folder: Path) -> Scalars:
    """(name, step) -> value, from summary.json and metrics.csv."""
    history = json.loads((folder / "summary.json").read_text())["history"]
    found = {(name, row["round"]): row[name] for row in history for name in ROUND}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            figures = {name: value for name, value in row.items() if name not in NOT_FIGURES and value}
            found |= {(f"{row['client']}/{name}", int(row["round"])): float(v) for name, v in figures.items()}
    assert ("client-01/test_accuracy", 1) in found
    return found


def in_tensorboard(folder: Path) -> Scalars:
    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0}).Reload()
    return {(tag, one.step): one.value for tag in events.Tags()["scalars"] for one in events.Scalars(tag)}


def mlflow_of(folder: Path) -> tuple[MlflowClient, str]:
    note = json.loads((folder / "mlflow.json").read_text())
    return MlflowClient(note["tracking_uri"]), note["run_id"]


def in_mlflow(folder: Path) -> Scalars:
    client, run_id = mlflow_of(folder)
    history = [client.get_metric_history(run_id, name) for name in client.get_run(run_id).data.metrics]
    values = [((one.key, one.step), one.value) for points in history for one in points]
    assert len(values) == len(dict(values))
    return dict(values)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        _, _, folder = train(spec_of(), tmp_path_factory.mktemp("tracked") / "run", track=TRACKERS)
    return folder


def test_tensorboard_has_the_figures_of_the_run_folder(tracked: Path) -> None:
    assert in_tensorboard(tracked) == pytest.approx(expected(tracked), rel=1e-6)  # float32
    events = EventAccumulator(str(tracked / "tensorboard")).Reload()
    (specification,) = events.Tensors("specification")
    assert b"| strategy.name | fedavg |" in specification.tensor_proto.string_val[0]
    assert events.Tensors("state")[-1].tensor_proto.string_val == [b"finished"]


def test_mlflow_has_figures_parameters_and_files_of_the_run_folder(tracked: Path) -> None:
    assert in_mlflow(tracked) == expected(tracked)
    client, run_id = mlflow_of(tracked)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tracked")
    assert run.data.params["run.rounds"] == "2"
    assert run.data.params["strategy.name"] == "fedavg"
    files = {one.path for one in client.list_artifacts(run_id)}
    assert files == {"run.toml", "summary.json", "metrics.csv", "plots", "model"}
    kept = Path(client.download_artifacts(run_id, "metrics.csv"))
    assert list(csv.reader(kept.open())) == list(csv.reader((tracked / "metrics.csv").open()))


def test_a_run_with_real_processes_goes_on_without_a_server_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # discard: nobody listens there
    _, _, folder = train_with_services(spec_of(), tmp_path / "run", track=TRACKERS)
    assert in_tensorboard(folder) == pytest.approx(expected(folder), rel=1e-6)
    told = [line for line in capsys.readouterr().err.splitlines() if "127.0.0.1:9" in line]
    assert len(told) == 1
    assert told[0].startswith("--track mlflow fails; the run goes on")


def test_a_run_that_fails_is_failed_there_too(tmp_path: Path) -> None:
    spec = spec_of(client_optimizer={"name": "SGD", "lr": 1e30})
    with pytest.raises(NotFinite):
        train(spec, tmp_path / "run", track=TRACKERS)
    client, run_id = mlflow_of(tmp_path / "run")
    assert client.get_run(run_id).info.status == "FAILED"
    assert [one.path for one in client.list_artifacts(run_id)] == ["run.toml"]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert events.Tensors("state")[-1].tensor_proto.string_val == [b"failed"]


def test_a_run_that_is_interrupted_and_resumed_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def interrupting(_: Any) -> Iterator[Callable[[dict[str, Any]], None]]:
        def show(run: dict[str, Any]) -> None:
            if run["history"]:
                raise KeyboardInterrupt

        yield show

    spec = spec_of(rounds=20)
    with monkeypatch.context() as patch:
        patch.setattr("microsfl.launch.training.progress", interrupting)
        with pytest.raises(KeyboardInterrupt):
            train_with_services(spec, tmp_path / "run", track=TRACKERS)
    client, run_id = mlflow_of(tmp_path / "run")
    assert client.get_run(run_id).info.status == "KILLED"
    before = in_mlflow(tmp_path / "run")
    assert ("accuracy", 0) in before

    _, _, folder = train_with_services(spec, tmp_path / "run", resume=True, track=TRACKERS)
    assert mlflow_of(folder)[1] == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    after = in_mlflow(folder)
    assert after == expected(folder)
    assert before.items() <= after.items()
    assert in_tensorboard(folder) == pytest.approx(after, rel=1e-6)


class Flaky:
    """Fails as often as it is told to, and keeps what it got."""

    def __init__(self, failures: int) -> None:
        self.failures, self.got = failures, list[Any]()

    def _take(self, what: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("gone: http://me:secret@there")
        self.got.append(what)

    def begin(self) -> None:
        self._take("begin")

    def log(self, step: int, _: Figures, __: Figures) -> None:
        self._take(step)

    def end(self, state: str) -> None:
        self._take(state)


@pytest.mark.parametrize("retry_s", [0.0, 3600.0])
def test_a_tracker_that_comes_back_gets_everything_and_is_told_of_once(
    retry_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Flaky(3 if retry_s == 0 else 1)
    follower = Follower([Patient("mlflow", tracker, retry_s)])
    for count in range(6):
        follower.follow([{"round": number, "loss": 1.0} for number in range(count)], list)
    follower.end("finished")
    assert tracker.got == ["begin", 0, 1, 2, 3, 4, "finished"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "gone: http://me:***@there" in told


def test_unknown_and_missing_trackers_are_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in (train, train_with_services):
        with pytest.raises(InvalidSetting, match=r"'mlfow' is unknown\. Did you mean 'mlflow'"):
            function(spec_of(), tmp_path / "run", track=["mlfow"])
    assert CliRunner().invoke(cli, ["run", "--track", "mlfow"]).exit_code == 2
    with_coordinator = ["run", "--coordinator", "http://127.0.0.1:9", "--track", "mlflow"]
    assert "--track is for" in CliRunner().invoke(cli, with_coordinator).output
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else name)
    with pytest.raises(OperationError, match=r"pip install 'microsfl\[mlflow\]'"):
        train(spec_of(), tmp_path / "run", track=["mlflow"])
    assert not (tmp_path / "run").exists()


def test_no_password_is_handed_on() -> None:
    assert without_secrets("postgresql+psycopg://me:secret@db/runs") == "postgresql+psycopg://me:***@db/runs"
    assert without_secrets("postgresql://db/runs?password=secret&a=1") == "postgresql://db/runs?password=***&a=1"
    assert without_secrets("file:///a/b@c, s3://bucket/prefix") == "file:///a/b@c, s3://bucket/prefix"
