"""What every database behind `Records` must do: one suite, one parameter a database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from microsfl.errors import InvalidSetting, RunExists, StoreNotWritable, StoreUnavailable
from microsfl.records import Participant, Records, RunRecord
from microsfl.records.database import masked

URLS = ["sqlite:///{folder}/records.db", "sqlite://"]

RUN = RunRecord("demo", '{"spec":1}', '{"state":1}', 1, 1000.5)


@pytest.fixture(params=URLS)
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    opened = Records(request.param.format(folder=tmp_path))
    yield opened
    opened.close()


def client(name: str, last_seen: float = 20.25) -> Participant:
    return Participant(name, "client", None, {"cores": 2, "nested": {"é": [1, None]}}, 10.5, last_seen)


def test_it_begins_empty(records: Records) -> None:
    assert (records.participants(), records.runs()) == ([], [])
    assert (records.rounds("demo"), records.metrics("demo")) == ([], [])


def test_participants_come_back_as_they_were_saved(records: Records) -> None:
    server = Participant("s", "split-server", "http://h:1", {}, 1.0, 2.0)
    records.save_participants([server, client("b"), client("a")])
    assert records.participants() == [client("a"), client("b"), server]


def test_saving_a_participant_again_replaces_it(records: Records) -> None:
    records.save_participants([client("a"), client("b")])
    records.save_participants([client("a", last_seen=99.0)])
    assert records.participants() == [client("a", last_seen=99.0), client("b")]


def test_runs_come_oldest_first(records: Records) -> None:
    older = replace(RUN, name="older", created_at=3.0)
    records.add_run(RUN)
    records.add_run(older)
    assert records.runs() == [older, RUN]


def test_a_run_is_added_once(records: Records) -> None:
    records.add_run(RUN)
    with pytest.raises(RunExists, match="demo"):
        records.add_run(replace(RUN, spec="{}"))
    assert records.runs() == [RUN]


def test_progress_adds_columns_and_keeps_the_others(records: Records) -> None:
    records.add_run(RUN)
    records.save_progress(
        "demo", "{}", 2, rounds={0: {"started_at": 5.0}}, metrics={(0, "a"): {"train_loss": None, "samples": 7}}
    )
    records.save_progress(
        "demo",
        '{"s":2}',
        3,
        rounds={0: {"ended_at": 6.0, "accuracy": 0.25}, 1: {"started_at": 6.0}},
        metrics={(0, "a"): {"test_accuracy": 0.5, "eval_bytes_up": 2**40}},
    )
    assert records.runs() == [replace(RUN, state='{"s":2}', revision=3)]
    first, second = records.rounds("demo")
    assert (first["started_at"], first["ended_at"], first["accuracy"], first["loss"]) == (5.0, 6.0, 0.25, None)
    assert (second["round"], second["started_at"], second["ended_at"]) == (1, 6.0, None)
    [row] = records.metrics("demo")
    assert (row["samples"], row["test_accuracy"], row["eval_bytes_up"]) == (7, 0.5, 2**40)
    assert (row["train_loss"], row["test_loss"], "run" in row) == (None, None, False)


def test_metrics_are_one_row_for_each_round_and_client(records: Records) -> None:
    records.add_run(RUN)
    for key in [(1, "a"), (0, "b"), (0, "a"), (0, "a")]:
        records.save_progress("demo", "{}", 2, metrics={key: {"samples": 1}})
    assert [(row["round"], row["client"]) for row in records.metrics("demo")] == [(0, "a"), (0, "b"), (1, "a")]
    assert [row["client"] for row in records.metrics("demo", 0)] == ["a", "b"]


def test_a_step_that_fails_leaves_nothing_behind(records: Records) -> None:
    records.add_run(RUN)
    no_client: str = None  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        records.save_progress(
            "demo", "{}", 9, rounds={0: {"started_at": 1.0}}, metrics={(0, no_client): {"samples": 1}}
        )
    assert (records.runs(), records.rounds("demo")) == ([RUN], [])


def test_metrics_of_a_run_that_does_not_exist_are_refused(records: Records) -> None:
    with pytest.raises(StoreUnavailable):
        records.save_progress("nobody", "{}", 2, metrics={(0, "a"): {"samples": 1}})
    assert records.metrics("nobody") == []


def test_threads_share_it(records: Records) -> None:
    records.add_run(RUN)

    def save(number: int) -> None:
        records.save_progress("demo", "{}", number, metrics={(0, f"c{number}"): {"samples": number}})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(40)))
    assert sorted(row["samples"] for row in records.metrics("demo")) == list(range(40))


def test_a_file_is_opened_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    first = Records(url)
    first.add_run(RUN)
    first.close()
    second = Records(url)
    assert second.runs() == [RUN]
    second.close()


def test_sqlite_has_wal_and_foreign_keys(tmp_path: Path) -> None:
    records = Records(f"sqlite:///{tmp_path}/records.db")
    with sqlite3.connect(tmp_path / "records.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    records.close()


@pytest.mark.parametrize("url", ["", "nonsense", "://", "oracle+nothing://u:s3cret@h/d", "sqlite:///x.db?timeout=a"])
def test_a_url_that_names_no_database_is_an_invalid_setting(url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Records(url)
    assert "s3cret" not in str(caught.value)


def test_a_missing_driver_is_named() -> None:
    with pytest.raises(InvalidSetting, match="asyncpg"):
        Records("postgresql+asyncpg://user:s3cret@127.0.0.1:1/db")


@pytest.mark.parametrize("kind", ["no folder", "no database"])
def test_a_file_that_cannot_be_used_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "records.db"
    if kind == "no database":
        path = tmp_path / "notes.txt"
        path.write_text("not a database, but long enough to have a header of its own\n" * 50)
    with pytest.raises(StoreNotWritable, match=path.name):
        Records(f"sqlite:///{path}")


def test_a_database_of_the_wrong_shape_says_so_when_used(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "records.db") as connection:
        connection.execute("CREATE TABLE participants (other INTEGER)")
    records = Records(f"sqlite:///{tmp_path}/records.db")
    with pytest.raises(StoreUnavailable, match=r"records\.db"):
        records.participants()
    records.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p@ss/w@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("sqlite:///folder/file.db", "sqlite:///folder/file.db"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
