"""The processes of a run, of which those that compute are forked: each on its own, and none is ever left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.integration.launched import DEADLINE_S, is_alive, pids, processes, run, start, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process is started by itself")

ENDLESS = ("--set", "run.rounds=100000")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_what_computes_is_forked_and_ends_with_a_killed_launcher(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    launcher = start(folder, *ENDLESS)
    try:
        roles = {one["name"]: one["pid"] for one in processes(folder)}
        assert parent(roles.pop("coordinator")) == launcher.pid
        (server,) = {parent(pid) for pid in roles.values()}
        assert parent(server) == launcher.pid
        assert {pid: os.getpgid(pid) for pid in (server, *roles.values())} == {p: p for p in (server, *roles.values())}
        assert {name: Path(f"/proc/{pid}/comm").read_text().strip() for name, pid in roles.items()} == {
            name: name for name in roles
        }
    finally:
        launcher.kill()
        launcher.communicate(timeout=DEADLINE_S)
    until(lambda: not any(is_alive(pid) for pid in (server, *pids(folder))), "all end by themselves")


def test_a_wrong_run_is_told_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(tmp_path / "run", '--set=model.cut=["fc1","relu9"]').process
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("microsfl: error: ")
    assert "Did you mean 'relu2'?" in done.stderr
    assert list(tmp_path.iterdir()) == []
