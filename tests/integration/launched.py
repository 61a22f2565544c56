"""`microsfl run` as a process of its own, and what its tests ask of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEADLINE_S = 120.0  # generous: a busy machine is no reason to fail

Json = dict[str, Any]


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "microsfl", "run", "--output", str(folder), *arguments]


@dataclass(frozen=True)
class Finished:
    """A run that came to its end."""

    folder: Path
    process: subprocess.CompletedProcess[str]

    @property
    def summary(self) -> Json:
        return dict(json.loads((self.folder / "summary.json").read_text()))


def run(folder: Path, *arguments: str, cwd: Path | None = None) -> Finished:
    """Run to the end; the caller looks at the exit code."""
    process = subprocess.run(
        command(folder, *arguments), cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    return Finished(folder, process)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a run as a script does in the background, with SIGINT ignored, and wait until it trains."""
    process = subprocess.Popen(
        command(folder, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stderr is not None
    try:
        until(lambda: process.poll() is not None or all_up(folder), "every process is up")
        assert process.poll() is None, process.stderr.read()
        process.stderr.readline()  # the line that is printed when the run has begun
    except BaseException:
        process.kill()
        raise
    return process


def processes(folder: Path) -> list[Json]:
    """What processes.json says now."""
    file = folder / "processes.json"
    return list(json.loads(file.read_text())) if file.exists() else []


def all_up(folder: Path) -> bool:
    known = processes(folder)
    return bool(known) and {one["role"] for one in known} >= {"client", "fed-server"} and states(known) == {"up"}


def states(known: list[Json]) -> set[str]:
    return {one["state"] for one in known}


def pids(folder: Path) -> list[int]:
    return [one["pid"] for one in processes(folder)]


def is_alive(pid: int) -> bool:
    """False also for a process that ended and that nobody has waited for yet."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def until(condition: Callable[[], bool], what: str, within_s: float = DEADLINE_S) -> None:
    """Wait for `condition`, and fail when it does not come in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s:g} s for: {what}"
        time.sleep(0.02)
