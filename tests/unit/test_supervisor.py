"""The supervisor: what ended is started again, within a limit. The children are small real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from microsfl.launch.supervisor import Supervisor

DEADLINE_S = 30.0


class Script:
    """Stands in for a `Child`: a Python process that runs `code`, without the start-up of a role."""

    def __init__(self, name: str, code: str) -> None:
        self.name, self.code, self.restarts = name, code, 0
        self.up_since: float | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", self.code])
        self.up_since = time.monotonic()

    def restart(self) -> None:
        self.restarts += 1
        self.start()

    @property
    def state(self) -> str:
        return "up" if self.process.poll() is None else "ended"

    @property
    def refused(self) -> bool:
        return self.process.returncode == 2

    def ending(self) -> str:
        return f"exit code {self.process.returncode}"


def watch(children: list[Any], limit: int, until: Any) -> Supervisor:
    """Supervise until the condition holds, which it looks at after each restart and now and then."""
    changed = threading.Event()
    supervisor = Supervisor(children, limit, changed.set)
    supervisor.start()
    deadline = time.monotonic() + DEADLINE_S
    while not until(supervisor):
        assert time.monotonic() < deadline
        changed.wait(0.05)
        changed.clear()
    supervisor.stop()
    return supervisor


def test_a_process_that_ends_is_started_again_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microsfl.launch.supervisor.FIRST_PAUSE_S", 0.01)
    child = Script("short", "raise SystemExit(3)")
    supervisor = watch([child], 3, lambda s: s.is_down(child))
    assert child.restarts == 3
    assert supervisor.reports == [f"short ended with exit code 3; started again ({n} of 3 times)" for n in (1, 2, 3)]


def test_a_process_that_refuses_its_settings_is_not_started_again() -> None:
    child = Script("wrong", "raise SystemExit(2)")
    supervisor = watch([child], 3, lambda s: s.is_down(child))
    assert (child.restarts, supervisor.reports) == (0, [])


def test_others_are_left_alone_and_a_stopped_supervisor_starts_nothing() -> None:
    steady = Script("steady", "import sys; sys.stdin.read()")
    steady.process.kill()
    steady.process.wait()
    steady.code = "import time; time.sleep(60)"
    supervisor = watch([steady], 3, lambda _: steady.state == "up")
    assert steady.restarts == 1
    steady.process.kill()
    steady.process.wait()
    assert not supervisor._thread.is_alive()
    assert steady.restarts == 1
