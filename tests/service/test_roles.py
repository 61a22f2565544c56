"""Each role as a process of its own: settings from anywhere, one ready line, structured logs, a clean end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3

from tests.tokens import authorization

READY = re.compile(r"microsfl (?P<role>[a-z-]+) ready (?:at (?P<address>https?://\S+)|for (?P<clients>.+))\n")


@dataclass
class Process:
    """A role that said it is ready."""

    child: subprocess.Popen[str]
    role: str
    address: str | None
    log: Path

    def stop(self) -> tuple[int, str]:
        """(exit code, whatever else stood on standard output) after SIGTERM."""
        self.child.send_signal(signal.SIGTERM)
        output, _ = self.child.communicate(timeout=20)
        return self.child.returncode, output

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines()]


@contextmanager
def role(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Process]:
    log = folder / f"{arguments[0]}.log"
    with log.open("w") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "microsfl", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
    try:
        assert child.stdout is not None
        found = READY.fullmatch(child.stdout.readline())
        assert found, log.read_text()
        yield Process(child, found["role"], found["address"], log)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def health(process: Process) -> dict[str, object]:
    return dict(urllib3.request("GET", f"{process.address}/{path(process.role)}/health").json())


def path(role: str) -> str:
    return "api" if role == "coordinator" else "v1"


@pytest.mark.parametrize("name", ["coordinator", "split-server", "fed-server"])
def test_a_server_starts_alone_says_so_and_stops_cleanly(name: str, tmp_path: Path) -> None:
    where = (
        ["--records-url", f"sqlite:///{tmp_path}/r.db"]
        if name == "coordinator"
        else ["--store-url", f"file://{tmp_path}/s", "--allow-anybody"]
    )
    with role(tmp_path, name, "--port", "0", *where) as process:
        assert process.role == name
        assert health(process)["status"] == "ok"
        assert process.stop() == (0, "")
        assert process.events() == ["ready", "stopping"]


def test_settings_come_from_the_environment_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "roles.toml"
    file.write_text(f'[split-server]\nport = 0\nstore_url = "file://{tmp_path}/from-the-file"\nlog_level = "error"\n')
    environment = {"MICROSFL_STORE_URL": f"file://{tmp_path}/from-the-environment"}
    with role(tmp_path, "split-server", "--allow-anybody", "--config", str(file), environment=environment) as process:
        assert process.stop() == (0, "")
        assert process.events() == []
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_dir()) == ["from-the-environment"]


def test_a_client_registers_waits_for_work_and_stops_cleanly(tmp_path: Path) -> None:
    records = f"sqlite:///{tmp_path}/r.db"
    with role(tmp_path, "coordinator", "--port", "0", "--records-url", records) as coordinator:
        assert coordinator.address is not None
        with role(tmp_path, "client", "--coordinator", coordinator.address, "--ids", "site-a,site-b") as client:
            known = urllib3.request(
                "GET", f"{coordinator.address}/api/participants", headers=authorization(coordinator.address)
            ).json()["participants"]
            assert [(one["id"], one["role"], one["address"]) for one in known] == [
                ("site-a", "client", None),
                ("site-b", "client", None),
            ]
            assert client.stop() == (0, "")
            assert client.events() == ["stopping"]


def test_a_client_gives_up_on_a_coordinator_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "microsfl", "client", "--coordinator", "http://127.0.0.1:9", "--ids=a", "--retry-s=0.2"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("microsfl: error: POST /api/participants had no answer in 0.2 s")
    assert len(done.stderr.splitlines()) == 1
