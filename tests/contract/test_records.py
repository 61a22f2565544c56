"""What every database behind `Records` must do: one suite, one parameter a database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from microsfl.errors import InvalidSetting, RunExists, StoreNotWritable, StoreUnavailable
from microsfl.records import Participant, Records, RunRecord, schema, tables
from microsfl.records.database import masked
from tests.conftest import PostgresServer

DATABASES = ("SQLite file", "SQLite memory", "PostgreSQL")

RUN = RunRecord("demo", '{"spec":1}', '{"state":1}', 1, 1000.5)


def url_of(database: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if database == "PostgreSQL":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{folder}/records.db" if database == "SQLite file" else "sqlite://"


@pytest.fixture(params=DATABASES)
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    opened = Records(url_of(request.param, request, tmp_path))
    yield opened
    opened.close()


@pytest.fixture(params=[one for one in DATABASES if one != "SQLite memory"])
def lasting_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that outlives its connection."""
    return url_of(request.param, request, tmp_path)


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
    records.remove_participants(["a", "nobody"])
    assert records.participants() == [client("b")]


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
        metrics={(0, "a"): {"test_accuracy": 0.5, "eval_bytes_up": 2**40, "bytes_saved": 2**41}},
    )
    assert records.runs() == [replace(RUN, state='{"s":2}', revision=3)]
    first, second = records.rounds("demo")
    assert (first["started_at"], first["ended_at"], first["accuracy"], first["loss"]) == (5.0, 6.0, 0.25, None)
    assert (second["round"], second["started_at"], second["ended_at"]) == (1, 6.0, None)
    [row] = records.metrics("demo")
    assert (row["samples"], row["test_accuracy"], row["eval_bytes_up"]) == (7, 0.5, 2**40)
    assert row["bytes_saved"] == 2**41
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


def test_it_is_opened_again(lasting_url: str) -> None:
    first = Records(lasting_url)
    first.add_run(RUN)
    first.close()
    second = Records(lasting_url)
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


# Schema versions


def in_database(url: str, *statements: str) -> list[Any]:
    """What the last statement gives; on a connection of its own, without `Records`."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        results = [connection.execute(text(one)) for one in statements]
        rows = results[-1].all() if results[-1].returns_rows else []
    engine.dispose()
    return list(rows)


def test_a_new_database_has_the_newest_version(lasting_url: str) -> None:
    Records(lasting_url).close()
    assert in_database(lasting_url, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [(schema.HEAD,)]


def test_the_migrations_lead_to_today_s_tables(lasting_url: str) -> None:
    Records(lasting_url).close()
    engine = create_engine(lasting_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


def test_the_known_versions_are_those_of_the_files() -> None:
    config = Config()
    config.set_main_option("script_location", "microsfl.records:migrations")
    config.set_main_option("path_separator", "os")
    newest_first = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(newest_first)) == schema.KNOWN


def test_a_database_that_is_up_to_date_opens_without_alembic(tmp_path: Path) -> None:
    """It would add 0.1 s to each start of the coordinator."""
    url = f"sqlite:///{tmp_path}/records.db"
    Records(url).close()
    code = f"import sys; from microsfl.records import Records; Records({url!r}); assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# The columns of versions 0004 and 0005.
SPENT = (
    ("metrics", "spent"), ("metrics", "eval_spent"),
    ("rounds", "trained_at"), ("rounds", "reduce_spent"), ("rounds", "aggregate_spent"),
)  # fmt: skip


FOR_PEOPLE = (("runs", "ended_at"), ("runs", "class_counts"), ("participants", "restarts"))
OUTLIERS = (("rounds", "body_outliers"), ("rounds", "client_outliers"))


# The tables of versions 0006 and 0007.
LATER = ("identities", "invitations", "trail", "trail_head")


def dropping(column: tuple[str, str]) -> str:
    return "ALTER TABLE {} DROP COLUMN {}".format(*column)


def test_a_database_from_before_there_were_versions_is_adopted(lasting_url: str) -> None:
    first = Records(lasting_url)
    first.add_run(RUN)
    first.close()
    newer = (("rounds", "absent"), ("metrics", "bytes_saved"), *SPENT, *FOR_PEOPLE, *OUTLIERS)
    in_database(
        lasting_url, f"DROP TABLE {schema.VERSION_TABLE}", *map(dropping, newer), *map("DROP TABLE {}".format, LATER)
    )
    second = Records(lasting_url)
    assert second.runs() == [RUN]
    second.close()
    assert in_database(lasting_url, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [(schema.HEAD,)]


def test_a_database_of_the_version_before_keeps_its_metrics(lasting_url: str) -> None:
    first = Records(lasting_url)
    first.add_run(RUN)
    first.save_progress("demo", "{}", 2, metrics={(0, "a"): {"samples": 7}})
    first.close()
    back = f"UPDATE {schema.VERSION_TABLE} SET version_num = '0003'"
    older = (*map(dropping, (*SPENT, *FOR_PEOPLE, *OUTLIERS)), *map("DROP TABLE {}".format, LATER))
    in_database(lasting_url, back, *older)
    second = Records(lasting_url)
    [row] = second.metrics("demo")
    assert (row["samples"], row["spent"]) == (7, None)
    assert second.runs()[0].ended_at is None
    second.close()


def test_what_people_want_to_know_of_a_run_is_kept(records: Records) -> None:
    records.add_run(RUN)
    records.save_progress("demo", "{}", 2, ended_at=12.5)
    records.save_class_counts("demo", [[1, 2]])
    assert records.runs() == [replace(RUN, state="{}", revision=2, ended_at=12.5, class_counts="[[1, 2]]")]
    records.save_progress("demo", "{}", 3)
    assert records.runs()[0].ended_at is None  # it goes on


def test_metrics_of_some_rounds(records: Records) -> None:
    records.add_run(RUN)
    records.save_progress("demo", "{}", 2, metrics={(r, c): {"samples": r} for r in range(4) for c in "ab"})
    assert [(row["round"], row["client"]) for row in records.metrics_between("demo", 1, 3)] == [
        (1, "a"), (1, "b"), (2, "a"), (2, "b"),
    ]  # fmt: skip


def test_how_often_a_participant_came_back_is_kept(records: Records) -> None:
    records.save_participants([replace(client("a", 1.0), restarts=3), client("b", 1.0)])
    assert [one.restarts for one in records.participants()] == [3, 0]


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(lasting_url: str) -> None:
    Records(lasting_url).close()
    in_database(lasting_url, f"UPDATE {schema.VERSION_TABLE} SET version_num = '0999'", "DROP TABLE metrics")
    with pytest.raises(InvalidSetting, match=f"version 0999.*up to {schema.HEAD}"):
        Records(lasting_url)
    assert in_database(lasting_url, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [("0999",)]
    with pytest.raises(DBAPIError):
        in_database(lasting_url, "SELECT * FROM metrics")


@pytest.mark.parametrize("table", ["participants (other INTEGER)", "runs (name TEXT, spec TEXT, state TEXT)"])
def test_somebody_else_s_tables_are_refused_and_left_as_they_are(lasting_url: str, table: str) -> None:
    in_database(lasting_url, f"CREATE TABLE {table}")
    with pytest.raises(InvalidSetting, match=f"table '{table.split()[0]}' that is not microsfl's"):
        Records(lasting_url)
    with pytest.raises(DBAPIError):
        in_database(lasting_url, "SELECT * FROM metrics")


def test_half_of_the_tables_are_refused(lasting_url: str) -> None:
    Records(lasting_url).close()
    in_database(lasting_url, f"DROP TABLE {schema.VERSION_TABLE}", "DROP TABLE metrics")
    with pytest.raises(InvalidSetting, match="not the others"):
        Records(lasting_url)


def test_several_start_at_once_on_a_new_database(lasting_url: str) -> None:
    def open_once(_: int) -> list[RunRecord]:
        records = Records(lasting_url)
        try:
            return records.runs()
        finally:
            records.close()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(open_once, range(8))) == [[]] * 8
    assert len(in_database(lasting_url, f"SELECT * FROM {schema.VERSION_TABLE}")) == 1


def test_processes_start_at_once_on_a_new_database(lasting_url: str) -> None:
    code = "import sys; sys.stdin.read(); from microsfl.records import Records; Records(sys.argv[1]).close()"
    command = [sys.executable, "-c", f"import microsfl.records; {code}", lasting_url]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdin
        process.stdin.close()
    assert [process.stderr.read() for process in processes if process.stderr] == ["", "", ""]
    assert [process.wait(60) for process in processes] == [0, 0, 0]


# PostgreSQL


def test_a_server_that_is_down_is_named_without_the_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"me:\*\*\*@127\.0\.0\.1:1/db") as caught:
        Records("postgresql://me:s3cret@127.0.0.1:1/db")
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_postgresql_driver_comes_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidSetting, match=r"'psycopg'.*pip install 'microsfl\[postgres\]'"):
        Records("postgresql://127.0.0.1:1/db")


def test_after_a_server_s_restart_it_goes_on(postgres_server: PostgresServer) -> None:
    name = f"restart_{uuid.uuid4().hex}"
    url = make_url(postgres_server.url)
    in_database(postgres_server.url, f"CREATE SCHEMA {name}")
    records = Records(url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(False))
    records.add_run(RUN)
    postgres_server.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            records.runs()
    postgres_server.start()
    assert records.runs() == [RUN]
    records.save_progress("demo", "{}", 2)
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
