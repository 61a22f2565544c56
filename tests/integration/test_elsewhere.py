"""`microsfl run --coordinator`: a run on processes that others have started, and its results here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import microsfl
from microsfl.errors import RunExists, RunFailed, Unreachable
from microsfl.launch import elsewhere
from microsfl.launch.control import Control
from microsfl.launch.elsewhere import train_elsewhere
from microsfl.launch.preflight import resolve
from microsfl.spec import RunSpec
from tests.faults.chaos import Cluster, spec_of
from tests.integration.launched import run


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A coordinator, a split server, a fed server and three clients."""
    tables = {
        "run": {"name": "first", "rounds": 1},
        "data": {"clients": 3},
        "servers": {"split": 1, "clients_per_process": 3},
    }
    with microsfl.Federation(RunSpec.parse(tables), tmp_path_factory.mktemp("here") / "run") as federation:
        for _ in federation.follow():
            pass
        yield Cluster(federation)


def spec(name: str, **tables: dict[str, Any]) -> RunSpec:
    asked = {"run": {"name": name, "rounds": 2}, "data": {"clients": 3}, **tables}
    return resolve(RunSpec.parse(asked))


def test_the_folder_has_the_run_s_results_and_the_same_call_fetches_them_again(here: Cluster, tmp_path: Path) -> None:
    asked, url = spec("elsewhere"), here.federation.coordinator
    summary, rows, folder = train_elsewhere(url, asked, tmp_path / "first")
    outcome = here.outcome(asked)
    assert summary["weights_sha256"]["body"] == outcome.body
    settled = [one for commit in outcome.commits for one in commit.contributions]
    assert (summary["rounds"], summary["commits"], summary["contributions"]) == (2, 2, len(settled))
    assert (summary["split_servers"], len(rows)) == (1, 6)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "run.toml", "summary.json", "metrics.csv", "profile.csv", "model/front.safetensors", "model/body.safetensors",
        "model/tail.safetensors", "plots/accuracy.png", "plots/loss.png", "plots/timeline.png",
    }  # fmt: skip
    again, *_ = train_elsewhere(url, asked, tmp_path / "second")
    assert again == summary


def test_whom_a_run_waits_for_is_said(here: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = spec("lonely", data={"clients": 4})
    shown: list[str] = []

    class Enough(Exception):
        pass

    def show(_: Any, now: dict[str, Any]) -> None:
        shown.append(now["waiting"])
        raise Enough

    monkeypatch.setattr("microsfl.launch.progress.Lines.show", show)
    with pytest.raises(Enough):
        train_elsewhere(here.federation.coordinator, asked, tmp_path / "lonely")
    assert shown == ["waiting for 4 clients; 3 there: client-00, client-01, client-02"]
    Control(here.federation.coordinator, "lonely").stop()
    monkeypatch.undo()
    with pytest.raises(RunFailed, match="'lonely' stopped in round 0"):
        train_elsewhere(here.federation.coordinator, asked, tmp_path / "lonely")
    assert not (tmp_path / "lonely").exists()


def test_another_run_of_the_same_name_is_refused(here: Cluster, tmp_path: Path) -> None:
    train_elsewhere(here.federation.coordinator, spec("taken", run={"name": "taken", "rounds": 1}), tmp_path / "a")
    with pytest.raises(RunExists, match="'taken' with another specification"):
        train_elsewhere(here.federation.coordinator, spec("taken"), tmp_path / "b")


def test_a_coordinator_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(elsewhere, "FIRST_ANSWER_S", 0.1)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        train_elsewhere("http://127.0.0.1:9", spec_of("nobody"), tmp_path / "x")


def test_the_command_line_prints_the_table_and_refuses_what_makes_no_sense(here: Cluster, tmp_path: Path) -> None:
    url = here.federation.coordinator
    small = ("--set", "run.name=typed", "--set", "run.rounds=1", "--set", "data.clients=3")
    done = run(tmp_path / "typed", *small, "--coordinator", f"{url}/", "--json")
    assert done.process.returncode == 0, done.process.stderr
    assert json.loads(done.process.stdout)["rounds"] == 1
    assert "round 1/1" in done.process.stderr
    for wrong, said in (
        (("--coordinator", url, "--simulate"), "--simulate is for a run in this process"),
        (("--coordinator", "localhost:8000"), "'localhost:8000' is not a URL"),
    ):
        refused = run(tmp_path / "refused", *wrong)
        assert refused.process.returncode == 2
        assert said in refused.process.stderr
