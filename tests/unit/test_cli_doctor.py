"""`microsfl doctor`: what each check finds, and that it leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import threading
import time
import tomllib
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from microsfl import __version__
from microsfl.doctor import machine, places
from microsfl.doctor.finding import Finding
from microsfl.records import Records
from microsfl.records.schema import HEAD
from tests.unit.watched import microsfl

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "terminal.md").read_text()
NOBODY = "http://127.0.0.1:9"

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STORE_URL", "RECORDS_URL", "COORDINATOR"):
        monkeypatch.delenv(f"MICROSFL_{name}", raising=False)
    monkeypatch.setattr("microsfl.doctor.command.COORDINATOR", NOBODY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Answering(HTTPServer):
    """Says of itself whatever it is told to."""

    health: dict[str, Any]
    ahead_s: float = 0.0


class Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        body = json.dumps(self.server.health).encode()
        self.send_response_only(200)
        self.send_header("Date", formatdate(time.time() + self.server.ahead_s, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the test's output."""


@pytest.fixture
def answering() -> Iterator[Answering]:
    with Answering(("127.0.0.1", 0), Handler) as server:
        server.health = {"status": "ok", "role": "coordinator", "version": __version__}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url_of(server: Answering) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def only(findings: Iterator[Finding]) -> Finding:
    (found,) = findings
    return found


def test_a_machine_that_is_fit_has_no_problem_and_nothing_is_left_on_it(here: Path, capsys: Capture) -> None:
    store = f"file://{here}/new/store"
    records = f"sqlite:///{here}/none.db"
    assert microsfl("doctor", "--store-url", store, "--records-url", records, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["version"], said["problems"]) == (__version__, 0)
    checks = {one["check"].split(" ")[0]: one for one in said["findings"]}
    assert checks.keys() >= {"python", "torch", "device", "extra", "port", "disk", "folder", "store", "records"}
    assert all(set(one) == {"check", "status", "found", "advice"} for one in said["findings"])
    assert list(here.iterdir()) == []


def test_a_problem_is_told_with_what_to_do_and_exits_with_1(here: Path, capsys: Capture) -> None:
    (here / "file").write_text("kept")
    assert microsfl("doctor", "--store-url", f"file://{here}/file/store", "--coordinator", NOBODY) == 1
    lines = capsys.readouterr().out.splitlines()
    problems = [number for number, line in enumerate(lines) if line.startswith("problem")]
    assert [lines[number].split()[1] for number in problems] == ["store", "coordinator"]
    assert "Check the URL" in lines[problems[0] + 1]
    assert "Start it" in lines[problems[1] + 1]
    assert lines[-1].startswith("2 problems, ")
    assert (here / "file").read_text() == "kept"


def test_flags_come_from_the_environment_that_the_roles_have(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("MICROSFL_STORE_URL", "ftp://nowhere/x")
    assert microsfl("doctor", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert [one["check"] for one in said["findings"] if one["status"] == "problem"] == ["store ftp://nowhere/x"]


def test_a_store_that_lets_a_key_be_created_twice_is_a_problem(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setattr("microsfl.store.folder.Folder.create", lambda self, key, value: self.put(key, value) or True)
    found = only(places.store(f"file://{here}/store"))
    assert found.status == "problem"
    assert "created twice" in found.found
    assert only(places.here(here)).status == "problem"
    assert only(places.store("memory://")).status == "warning"


def test_secrets_of_urls_are_not_shown() -> None:
    store = only(places.store("s3://key:secret@bucket/x?token=secret"))
    records = only(places.records("postgresql://me:secret@127.0.0.1:9/x"))
    assert (store.status, records.status) == ("problem", "problem")
    assert "secret" not in f"{store}{records}"


# The database


def test_a_database_is_looked_at_and_neither_made_nor_migrated(here: Path) -> None:
    file = here / "records.db"
    url = f"sqlite:///{file}"
    assert "not there yet" in only(places.records(url)).found
    assert not file.exists()
    Records(url).close()
    assert only(places.records(url)) == Finding(f"records {url}", "ok", f"reachable, schema version {HEAD}")
    for version, status, words in (("0001", "ok", f"brings it to {HEAD}"), ("9999", "problem", f"up to {HEAD}")):
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE microsfl_version SET version_num = ?", (version,))
        connection.close()
        found = only(places.records(url))
        assert found.status == status
        assert words in found.found
        with sqlite3.connect(file) as connection:
            assert connection.execute("SELECT version_num FROM microsfl_version").fetchone() == (version,)
        connection.close()


def test_somebody_elses_database_keeps_its_journal_and_a_file_that_is_none_is_a_problem(here: Path) -> None:
    file = here / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE mine (x INTEGER)")
    connection.close()
    before = file.read_bytes()
    assert "without tables yet" in only(places.records(f"sqlite:///{file}")).found
    assert file.read_bytes() == before
    file.write_text("no database at all, but long enough to be looked at" * 50)
    assert only(places.records(f"sqlite:///{file}")).status == "problem"
    assert only(places.records("nonsense")).status == "problem"


# The coordinator and its clock


def test_a_coordinator_answers_with_its_version_and_the_same_time(answering: Answering) -> None:
    found = list(places.coordinator(url_of(answering), named=True))
    assert [(one.status, one.check.split()[0]) for one in found] == [("ok", "coordinator"), ("ok", "clock")]
    answering.health["version"] = "0.0.1"
    assert next(places.coordinator(url_of(answering), named=True)).status == "warning"


@pytest.mark.parametrize(("named", "status"), [(True, "problem"), (False, "warning")])
def test_what_is_no_coordinator_is_not_taken_for_one(answering: Answering, named: bool, status: str) -> None:
    answering.health = {"role": "split-server"}
    assert only(places.coordinator(url_of(answering), named=named)).status == status
    assert only(places.coordinator(NOBODY, named=named)).status == ("problem" if named else "ok")


def test_a_clock_that_is_wrong_is_found(answering: Answering) -> None:
    answering.ahead_s = 3600.0
    *_, clock = places.coordinator(url_of(answering), named=True)
    assert clock.status == "problem"
    assert "behind the coordinator's" in clock.found
    assert "NTP" in clock.advice


@pytest.mark.parametrize(
    ("apart", "status"),
    [(0.0, "ok"), (2.0, "ok"), (-2.0, "ok"), (20.0, "warning"), (-20.0, "warning"), (90, "problem")],
)
def test_how_far_clocks_may_be_apart(apart: float, status: str) -> None:
    assert only(places.clock(formatdate(1000.0, usegmt=True), 1000.5 + apart)).status == status


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_a_coordinator_without_a_date_is_a_warning(date: str | None) -> None:
    assert only(places.clock(date, 0.0)).status == "warning"


# The machine


def test_a_port_that_is_taken_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(machine, "PORTS", {port: "coordinator"})
        found = only(machine.ports())
    assert found.status == "warning"
    assert "--port 0" in found.advice
    assert only(machine.ports()).status == "ok"


@pytest.mark.parametrize(("free", "status"), [(10**10, "ok"), (10**9, "warning"), (10**7, "problem")])
def test_little_room_is_told(free: int, status: str, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    usage = type(shutil.disk_usage(here))(2 * 10**10, 2 * 10**10 - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert only(machine.disk(here)).status == status


@pytest.mark.parametrize(("limit", "status"), [(4096, "ok"), (512, "warning"), (64, "problem")])
def test_few_open_files_are_told(limit: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, limit))
    assert only(machine.open_files()).status == status


def test_a_python_that_is_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(machine.python()).status == "ok"
    monkeypatch.setattr("sys.version_info", (3, 10, 0))
    assert only(machine.python()).status == "problem"


def test_without_torch_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    found = only(machine.torch())
    assert found.status == "problem"
    assert "pip install torch" in found.advice


def test_a_missing_extra_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "EXTRAS", {"run": (("not_there",), "x"), "otel": (("not_there",), "y")})
    run, otel = machine.extras()
    assert (run.status, otel.status) == ("warning", "ok")
    assert otel.advice == "pip install 'microsfl[otel]'"


def test_every_extra_of_the_package_is_looked_at() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert machine.EXTRAS.keys() == declared.keys() - {"dev", "docs", "fuzz", "supply", "deploy"}


def test_the_guide_describes_every_check() -> None:
    for check in ("python", "torch", "device", "extra …", "port …", "disk", "open files", "folder", "clock"):
        assert f"`{check}`" in GUIDE, check
