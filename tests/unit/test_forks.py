"""The fork server: what it forks is a process of its own, and nothing is lost when it is killed itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microsfl.errors import InvalidSetting
from microsfl.launch import forks as module
from microsfl.launch.aside import aside
from microsfl.launch.child import FORKED
from microsfl.launch.forks import NOBODY_SAW, Forked, Forks, Job, Unforked

DEADLINE_S = 60.0
STDERR = 2

ERRANDS = """
import os, sys, threading
from microsfl.errors import InvalidSetting
from microsfl.process import end_with_parent

print("whatever is printed while this is imported")

def tell():
    print(os.getpgid(0), os.getppid(), sys.argv[1:], os.environ.get("SECRET"), os.getcwd(), flush=True)

def stay():
    end_with_parent()
    print("here", flush=True)
    threading.Event().wait()

def refuse():
    sys.exit(3)

def break_down():
    raise ValueError("broken")

def double(question):
    print("a model may print")
    return {"twice": 2 * question["number"], "pid": os.getpid()}

def complain(question):
    raise InvalidSetting("seven is too many")

def break_there(question):
    if os.getpid() != question["pid"]:
        os._exit(9)
    return {"pid": os.getpid()}
"""


@pytest.fixture
def errands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that fork servers, which are started there, can import."""
    (tmp_path / "errands.py").write_text(ERRANDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "launcher's")
    monkeypatch.setenv("MICROSFL_PORT", "1")
    return tmp_path


@pytest.fixture
def forks(errands: Path) -> Iterator[Forks]:  # noqa: ARG001 - servers are started in that folder
    with Forks(["microsfl.launch.aside"]) as found:
        yield found


def job(function: str, *arguments: str, **environment: str) -> Job:
    return Job("errand", f"errands:{function}", arguments, {**os.environ, **environment})


def environment_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


def test_a_child_is_a_process_of_its_own(forks: Forks, errands: Path) -> None:
    child = forks.start(job("tell", "--flag=1", SECRET="its own"), STDERR)
    imported, told = child.stdout.read().decode().splitlines()
    assert imported.startswith("whatever")  # by the child: the server has not imported a user's module
    assert told == f"{child.pid} {forks.pid} ['--flag=1'] its own {errands}"
    assert child.wait(DEADLINE_S) == 0


def test_credentials_reach_no_other_process(forks: Forks) -> None:
    """Law 6: neither the server nor what its children were at first has the launcher's, or another child's."""
    first = forks.start(job("stay", SECRET="first"), STDERR)
    second = forks.start(job("stay", SECRET="second"), STDERR)
    assert all([first.stdout.readline(), second.stdout.readline()])
    assert forks.pid is not None
    for pid in (forks.pid, first.pid, second.pid):
        assert "PYTHONPATH" in environment_of(pid)
        assert not any(word in environment_of(pid) for word in ("AWS_", "MICROSFL_PORT", "SECRET"))


@pytest.mark.parametrize(("function", "code"), [("refuse", 3), ("break_down", 1)])
def test_how_a_child_ends_is_known(forks: Forks, function: str, code: int) -> None:
    with open(os.devnull, "wb") as log:
        child = forks.start(job(function), log.fileno())
    assert child.wait(DEADLINE_S) == child.poll() == child.returncode == code


def test_a_child_can_be_ended_by_signals_and_ends_with_its_parent(forks: Forks) -> None:
    codes = []
    for end in (Forked.terminate, Forked.kill, lambda child: child.stdin.close()):
        child = forks.start(job("stay"), STDERR)
        child.stdout.readline()
        assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.0)
        end(child)
        codes.append(child.wait(DEADLINE_S))
        end(child)  # of no effect on one that has ended
    assert codes == [-signal.SIGTERM, -signal.SIGKILL, -signal.SIGTERM]


def test_children_outlive_a_server_that_is_killed(forks: Forks) -> None:
    child = forks.start(job("stay"), STDERR)
    child.stdout.readline()
    assert forks.pid is not None
    os.kill(forks.pid, signal.SIGKILL)
    with pytest.raises(Unforked):
        forks.start(job("tell"), STDERR)
    assert (forks.pid, child.poll()) == (None, None)
    child.kill()
    assert child.wait(DEADLINE_S) == NOBODY_SAW


def test_a_server_that_hangs_is_given_up(forks: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    forks.start(job("tell"), STDERR).wait(DEADLINE_S)
    monkeypatch.setattr(module, "FORK_S", 0.2)
    assert forks.pid is not None
    os.kill(forks.pid, signal.SIGSTOP)
    with pytest.raises(Unforked):
        forks.start(job("tell"), STDERR)
    assert forks.pid is None


@pytest.mark.usefixtures("errands")
def test_the_server_ends_with_the_launcher() -> None:
    code = (
        "from microsfl.launch.forks import Forks; f = Forks([]); f._control.recv(1); print(f.pid, flush=True); input()"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with launcher:
        assert launcher.stdout is not None
        pidfd = os.pidfd_open(int(launcher.stdout.readline()))
        launcher.kill()
    assert module._has_ended(pidfd, DEADLINE_S)
    os.close(pidfd)


def test_a_server_with_other_threads_forks_nothing(errands: Path) -> None:
    (errands / "threaded.py").write_text("import threading; threading.Thread(target=threading.Event().wait).start()")
    with Forks(["threaded"]) as forks, pytest.raises(Unforked):
        forks.start(job("tell"), STDERR)


@pytest.mark.usefixtures("errands")
def test_what_the_roles_import_starts_no_thread() -> None:
    with Forks() as forks:
        assert forks.start(job("tell"), STDERR).wait(DEADLINE_S) == 0


@pytest.mark.usefixtures("errands")
def test_where_nothing_can_be_forked_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with Forks() as forks:
        assert forks.pid is None
        with pytest.raises(Unforked):
            forks.start(job("tell"), STDERR)


def test_the_coordinator_is_not_forked_from_what_has_torch() -> None:
    assert "coordinator" not in FORKED


def test_an_errand_is_done_by_a_child(forks: Forks) -> None:
    answer = aside(forks, "errands:double", {"number": 21})
    assert answer["twice"] == 42
    assert answer["pid"] != os.getpid()


def test_an_errand_s_error_is_raised_here(forks: Forks) -> None:
    with pytest.raises(InvalidSetting, match=r"^seven is too many$"):
        aside(forks, "errands:complain", {})


def test_an_errand_without_an_answer_is_done_here(forks: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(os.getcwd())
    question: dict[str, Any] = {"pid": os.getpid(), "number": 1}
    assert aside(forks, "errands:break_there", question)["pid"] == os.getpid()
    with Forks(["threaded"]) as none:
        assert aside(none, "errands:double", question)["pid"] == os.getpid()
