"""Run folders as runs leave them, without a run: records, specification, processes and logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from microsfl.cli import main
from microsfl.core.run_state import Phase, RunState, Status, to_json
from microsfl.launch.spec_file import to_toml
from microsfl.records import Records, RunRecord
from microsfl.spec import RunSpec

Json = dict[str, Any]


def microsfl(*arguments: str) -> int:
    """Exit code of the command, run in this process."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def spec_of(name: str, rounds: int = 3) -> RunSpec:
    return RunSpec.parse({"run": {"name": name, "rounds": rounds}}).resolved(input_shape=(1, 8, 8), classes=10)


def state_of(status: str, round_: int, reason: str | None = None) -> RunState:
    phase = Phase.TRAINING if status == "running" else None
    clients = tuple(f"client-{number:02}" for number in range(5))
    return RunState(
        3, 5, status=Status(status), phase=phase, round=round_, clients=clients, chosen=clients, reason=reason
    )


def record(folder: Path, name: str, state: RunState, done: int, created_at: float = 1000.0, **more: Any) -> None:
    """Put a run into the folder's database, with so many rounds over. more: what else each of them has."""
    with closing(Records(f"sqlite:///{folder}/coordinator.db")) as records:
        records.add_run(RunRecord(name, spec_of(name).to_json(), to_json(state), 7, created_at))
        over = {"ended_at": 1.0, "accuracy": 0.5, "loss": 0.25, "seconds": 1.0, "samples_per_s": 10.0, **more}
        records.save_progress(name, to_json(state), 7, rounds=dict.fromkeys(range(done), over))


def run_folder(path: Path, name: str, status: str, done: int = 2, reason: str | None = None, **more: Any) -> Path:
    """As a launcher that was there leaves it."""
    (path / "logs").mkdir(parents=True)
    (path / "run.toml").write_text(to_toml(spec_of(name)))
    record(path, name, state_of(status, done, reason), done, **more)
    processes(path, [("coordinator", "coordinator"), ("split-server", "split-server-0"), ("client", "clients-0")])
    return path


def processes(path: Path, roles: Sequence[tuple[str, str]], state: str = "ended", pid: int = 0) -> None:
    entries = [
        {"role": role, "name": name, "pid": pid or dead(), "address": None, "state": state, "exit_code": None}
        for role, name in roles
    ]
    (path / "processes.json").write_text(json.dumps([{**one, "restarts": 0} for one in entries]))


def dead() -> int:
    """The id of a process that there was: it has ended, and was waited for."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def living() -> int:
    return os.getpid()


def log(path: Path, process: str, *lines: str) -> None:
    with (path / "logs" / f"{process}.log").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def entry(second: int, role: str, event: str, level: str = "info", **data: Any) -> str:
    time = f"2026-01-01T00:00:{second:02}.000Z"
    return json.dumps({"time": time, "level": level, "role": role, "event": event, **data})
