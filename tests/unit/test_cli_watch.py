"""`microsfl runs`, `status` and `logs` on what runs have left: every state, every way to name a run, every error."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from microsfl.launch.progress import line
from microsfl.records.glance import glance
from microsfl.records.migrations.versions.v0001_first_tables import metadata as first_tables
from microsfl.watch.find import Asked, find_run
from microsfl.watch.folder import SeenFolder
from microsfl.watch.rows import COLUMNS
from microsfl.watch.runs import console
from microsfl.watch.status import display
from microsfl.watch.view import Seen, participants_of
from tests.unit.watched import (
    entry,
    living,
    log,
    microsfl,
    processes,
    record,
    run_folder,
    state_of,
)

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "terminal.md"
NOBODY = "http://127.0.0.1:9"  # the discard port, where nothing listens

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no coordinator at the usual address, whatever else this machine runs."""
    monkeypatch.setattr("microsfl.watch.find.COORDINATOR", NOBODY)
    monkeypatch.delenv("MICROSFL_COORDINATOR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)


# runs


def test_runs_are_listed_from_run_folders_and_without_a_coordinator(here: Path, capsys: Capture) -> None:
    run_folder(here / "runs/a", "first", "finished", done=3)
    run_folder(here / "runs/b", "second", "failed", done=1, reason="client-03: out of memory")
    assert microsfl("runs", "--json") == 0
    listed = told(capsys)
    assert listed["coordinator"] is None
    rows = {row["name"]: row for row in listed["runs"]}
    assert {name: (row["state"], row["rounds_done"]) for name, row in rows.items()} == {
        "first": ("finished", 3),
        "second": ("failed", 1),
    }
    assert all(tuple(row) == COLUMNS for row in rows.values())
    assert rows["second"]["reason"] == "client-03: out of memory"
    assert microsfl("runs") == 0
    output = capsys.readouterr()
    assert "first" in output.out
    assert "runs/b" in output.out
    assert f"No coordinator answers at {NOBODY}" in output.err


def test_no_runs_are_no_error(capsys: Capture) -> None:
    assert microsfl("runs") == 0
    assert capsys.readouterr().out == "No runs in runs/.\n"
    assert microsfl("runs", "--json") == 0
    assert told(capsys) == {"coordinator": None, "runs": []}


def test_a_coordinator_that_was_named_has_to_answer(capsys: Capture) -> None:
    assert microsfl("runs", "--coordinator", NOBODY) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"microsfl: error: No coordinator answers at {NOBODY}")
    assert "--coordinator or MICROSFL_COORDINATOR" in said
    assert said.count("\n") == 1
    assert microsfl("status", "demo", "--coordinator", NOBODY) == 1
    assert microsfl("runs", "--coordinator", "control:8000") == 2
    assert "http://host:8000" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_cannot_be_read_hides_no_other(here: Path, capsys: Capture) -> None:
    run_folder(here / "runs/good", "good", "finished", done=3)
    (run_folder(here / "runs/bad", "bad", "finished") / "run.toml").write_text("[run\n")
    assert microsfl("runs", "--json") == 0
    rows = {row["name"]: row for row in told(capsys)["runs"]}
    assert rows["bad"]["state"] == "unreadable"
    assert "run.toml cannot be read as TOML" in rows["bad"]["reason"]
    assert rows["good"]["state"] == "finished"
    assert microsfl("runs") == 0


# status


@pytest.mark.parametrize(
    ("status", "shown", "code"),
    [("finished", "finished", 0), ("failed", "failed", 1), ("stopped", "stopped", 1), ("running", "interrupted", 1)],
)
def test_following_a_run_that_is_over_exits_by_its_outcome(
    status: str, shown: str, code: int, here: Path, capsys: Capture
) -> None:
    run_folder(here / "runs/a", "first", status)
    assert microsfl("status", "first", "--json") == 0
    seen = told(capsys)
    assert seen["state"] == shown
    assert [one["round"] for one in seen["history"]] == [0, 1]
    assert seen["accuracy"] == 0.5
    assert {one["name"] for one in seen["processes"]} == {"coordinator", "split-server-0", "clients-0"}
    assert microsfl("status", "first", "--follow") == code
    assert microsfl("status", "first", "--follow", "--json") == code
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["state"] == shown


def test_status_names_the_outliers_of_a_round_and_of_a_client(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_of = [[{"client": f"client-{number:02}", "norm": 9.0, "median": 1.0, "score": 12.5}] for number in range(5)]
    both = {"body_outliers": json.dumps(told_of[3]), "client_outliers": json.dumps(told_of[3] + told_of[1])}
    folder = run_folder(here / "runs/a", "first", "failed", **both)
    run_folder(here / "runs/b", "calm", "failed")
    assert microsfl("status", "first", "--json") == 0
    assert [one["outliers"] for one in told(capsys)["history"]] == 2 * [["client-01", "client-03"]]
    assert microsfl("status", "first") == 0
    shown = capsys.readouterr().out
    assert "outliers" in shown
    assert shown.count("client-01, client-03") == 2
    assert microsfl("status", "calm") == 0
    assert "outlier" not in capsys.readouterr().out
    assert microsfl("status", "first", "--follow") == 1
    # While its coordinator lives, the clients are shown, too.
    run = SeenFolder(folder).run()
    found = [{"id": one, "role": "client", "address": None, "alive": True, "last_seen": 1.0} for one in run["clients"]]
    seen = Seen(run, participants_of(run, found), [], None, None)
    monkeypatch.setenv("COLUMNS", "160")
    console().print(display(seen))
    lines = capsys.readouterr().out.splitlines()
    noted = {one for one in run["clients"] if any(one in line and "outlier in round 2" in line for line in lines)}
    assert noted == {"client-01", "client-03"}


def test_of_many_outliers_the_first_are_named() -> None:
    result = {"round": 0, "accuracy": 0.5, "loss": 1.0, "samples_per_s": None}
    assert "outliers" not in line(result, 3)
    assert line({**result, "outliers": ["a", "b"]}, 3).endswith("outliers: a, b")
    assert line({**result, "outliers": list("abcde")}, 3).endswith("outliers: a, b, c and 2 more")


def test_a_run_is_named_by_path_by_folder_or_by_name_of_which_the_newest_counts(here: Path, capsys: Capture) -> None:
    run_folder(here / "runs/old", "demo", "failed")
    run_folder(here / "runs/new", "demo", "finished", done=3)
    for folder, age in (("old", 100), ("new", 200)):
        os.utime(here / "runs" / folder / "run.toml", (age, age))
    for name, state in (("runs/old", "failed"), ("old", "failed"), ("demo", "finished")):
        assert microsfl("status", name, "--json") == 0
        assert told(capsys)["state"] == state, name
    assert microsfl("status", "dmeo") == 2
    said = capsys.readouterr().err
    assert "There is no run 'dmeo'" in said
    assert "Did you mean 'demo'?" in said
    assert f"none answers at {NOBODY}" in said


def test_a_finished_run_is_known_by_its_summary_when_the_records_are_gone(here: Path, capsys: Capture) -> None:
    folder = run_folder(here / "runs/a", "first", "finished", done=3)
    (folder / "coordinator.db").unlink()
    assert microsfl("status", "first", "--json") == 0
    assert told(capsys)["state"] == "interrupted"
    columns = ("accuracy", "accuracy_mean", "loss", "train_loss", "samples", "seconds", "samples_per_s")
    last = {"round": 0, **dict.fromkeys(columns, 0.5)}
    (folder / "summary.json").write_text(json.dumps({"rounds": 1, "history": [last]}))
    assert microsfl("status", "first", "--json") == 0
    seen = told(capsys)
    assert (seen["state"], seen["rounds_done"], seen["accuracy"]) == ("finished", 1, 0.5)
    assert microsfl("status", "first") == 0


def test_a_run_whose_processes_are_there_is_not_called_interrupted(here: Path, capsys: Capture) -> None:
    folder = run_folder(here / "runs/a", "first", "running")
    processes(folder, [("split-server", "split-server-0")], state="up", pid=living())
    assert microsfl("status", "first", "--json") == 0
    assert told(capsys)["state"] == "running"
    (folder / "run.toml").unlink()
    assert microsfl("status", "a", "--json") == 0
    seen = told(capsys)
    assert (seen["state"], seen["rounds"], seen["strategy"]) == ("starting", None, None)
    assert microsfl("status", "a") == 0
    processes(folder, [("split-server", "split-server-0")])
    assert microsfl("status", "a") == 2
    assert "it has no run.toml" in capsys.readouterr().err


def test_of_a_simulation_it_is_not_said_that_it_was_interrupted(here: Path, capsys: Capture) -> None:
    folder = run_folder(here / "runs/a", "first", "finished")
    for name in ("coordinator.db", "processes.json"):
        (folder / name).unlink()
    (folder / "simulated.txt").touch()
    assert microsfl("status", "first", "--json") == 0
    assert told(capsys)["state"] == "unfinished"
    assert microsfl("status", "first", "--follow") == 1
    assert "A simulation tells nothing before its end" in capsys.readouterr().out


def test_the_folder_of_up_is_said_to_be_one(here: Path, capsys: Capture) -> None:
    (here / "microsfl-data/logs").mkdir(parents=True)
    (here / "microsfl-data/in-use").touch()
    assert microsfl("status", "microsfl-data") == 2
    assert "`microsfl runs` lists them" in capsys.readouterr().err


def test_a_reason_from_elsewhere_cannot_move_the_cursor(here: Path, capsys: Capture) -> None:
    run_folder(here / "runs/a", "first", "failed", reason="client-00: \x1b[2J\x07[bold]gone")
    assert microsfl("status", "first") == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[2J\\x07[bold]gone" in shown


def test_looking_makes_and_changes_no_database(here: Path) -> None:
    assert glance(f"sqlite:///{here}/none.db") is None
    assert not (here / "none.db").exists()
    folder = run_folder(here / "a folder with # and blanks", "first", "running")
    before = (folder / "coordinator.db").read_bytes()
    ((run, rounds),) = glance(f"sqlite:///{folder}/coordinator.db").runs  # type: ignore[union-attr]
    assert (run.name, len(rounds)) == ("first", 2)
    assert (folder / "coordinator.db").read_bytes() == before
    assert [one.name for one in folder.glob("coordinator.db*")] == ["coordinator.db"]


def test_a_database_of_the_first_version_is_read_as_it_is(here: Path, capsys: Capture) -> None:
    folder = run_folder(here / "runs/a", "first", "failed")
    with closing(sqlite3.connect(folder / "coordinator.db")) as connection, connection:
        kept = connection.execute("SELECT name, spec, state, revision, created_at FROM runs").fetchone()
    (folder / "coordinator.db").unlink()
    engine = create_engine(f"sqlite:///{folder}/coordinator.db")
    first_tables.create_all(engine)
    with engine.begin() as connection_:
        connection_.execute(first_tables.tables["runs"].insert().values(kept))
        connection_.exec_driver_sql("CREATE TABLE microsfl_version (version_num VARCHAR(32))")
        connection_.exec_driver_sql("INSERT INTO microsfl_version VALUES ('0001')")
    engine.dispose()
    assert microsfl("status", "first", "--json") == 0
    assert told(capsys)["state"] == "failed"


# logs


@pytest.fixture
def logged(here: Path) -> Path:
    folder = run_folder(here / "runs/a", "first", "finished")
    log(folder, "coordinator", entry(1, "coordinator", "ready"), entry(5, "coordinator", "late", "warning", run="x"))
    log(folder, "split-server-0", entry(3, "split-server", "slow\x1b[2J", "error", seconds=2.5, why="a b"))
    log(folder, "split-server-0", "Traceback (most recent call last):", '  File "x", line 1')
    log(folder, "clients-0", entry(2, "client", "begun", "debug"), entry(4, "client", "done"))
    return folder


def events(capsys: Capture) -> list[str]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [one.get("event", one.get("text")) for one in lines]


def test_logs_are_merged_by_time_and_a_traceback_stays_with_its_line(logged: Path, capsys: Capture) -> None:
    assert microsfl("logs", "first", "--json") == 0
    assert events(capsys) == [
        "ready", "begun", "slow\x1b[2J", "Traceback (most recent call last):", '  File "x", line 1', "done", "late",
    ]  # fmt: skip
    assert microsfl("logs", str(logged)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == '2026-01-01 00:00:03.000  error    split-server-0    slow\\x1b[2J  seconds=2.5  why="a b"'
    assert lines[3].split() == ["split-server-0", "Traceback", "(most", "recent", "call", "last):"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--level", "warning"), ["slow\x1b[2J", "Traceback (most recent call last):", '  File "x", line 1', "late"]),
        (("coordinator",), ["ready", "late"]),
        (("client",), ["begun", "done"]),
        (("clients-0", "--level=info"), ["done"]),
        (("-n", "2"), ["done", "late"]),
        (("-n", "0"), []),
        (("fed-server",), []),
    ],
)
def test_lines_are_chosen_by_level_role_and_number(
    logged: Path, flags: tuple[str, ...], expected: list[str], capsys: Capture
) -> None:
    assert microsfl("logs", str(logged), *flags, "--json") == 0
    assert events(capsys) == expected


def test_following_ends_with_the_processes_and_reads_what_they_said_last(logged: Path, capsys: Capture) -> None:
    (logged / "logs/clients-0.log").open("a").write("cut off")
    assert microsfl("logs", "first", "--follow", "--json", "-n", "1") == 0
    assert events(capsys) == ["late", "cut off"]


def test_a_role_that_is_none_is_refused_with_the_nearest(logged: Path, capsys: Capture) -> None:
    assert microsfl("logs", str(logged), "split-server-7") == 2
    assert "Did you mean 'split-server-0'?" in capsys.readouterr().err
    assert microsfl("logs", str(logged), "--level", "loud") == 2


def test_of_a_run_of_up_only_its_own_lines_are_shown(here: Path, capsys: Capture) -> None:
    folder = here / "microsfl-data"
    (folder / "logs").mkdir(parents=True)
    (folder / "in-use").touch()
    record(folder, "one", state_of("running", 0), 0)
    lines = (entry(1, "coordinator", "ready"), entry(2, "coordinator", "mine", run="one"))
    log(folder, "coordinator", *lines, entry(3, "coordinator", "another's", run="two"))
    assert microsfl("logs", "one", "--json") == 0
    assert events(capsys) == ["ready", "mine"]
    assert microsfl("logs", "microsfl-data", "--json") == 0
    assert events(capsys) == ["ready", "mine", "another's"]
    assert microsfl("logs", "two") == 2
    assert "There is no run 'two'" in capsys.readouterr().err


def test_what_has_no_logs_says_why(here: Path, capsys: Capture) -> None:
    simulated = run_folder(here / "runs/a", "first", "finished")
    (simulated / "simulated.txt").touch()
    assert microsfl("logs", "first") == 2
    assert "simulated in one process" in capsys.readouterr().err
    elsewhere = run_folder(here / "runs/b", "second", "finished")
    (elsewhere / "logs").rmdir()
    assert microsfl("logs", "second") == 2
    assert "Its processes ran elsewhere" in capsys.readouterr().err


# What the guide says


def test_the_guide_names_every_key_of_a_row() -> None:
    keys = set(re.findall(r"`(\w+)`", GUIDE.read_text()))
    assert set(COLUMNS) <= keys


def test_a_folder_goes_before_a_name(here: Path) -> None:
    run_folder(here / "runs/first", "other", "finished")
    run_folder(here / "runs/b", "first", "failed")
    found = find_run("first", Asked())
    assert isinstance(found, SeenFolder)
    assert found.name() == "other"
