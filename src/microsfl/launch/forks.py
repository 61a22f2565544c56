"""The launcher's side of the fork server: processes that are forked from it, each like a `subprocess.Popen`."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import IO, Protocol, Self

from ..trust.credential import HOME

READY_S = 120.0  # for its imports, on a busy machine
FORK_S = 10.0
STATUS_S = 1.0
NOBODY_SAW = 255  # exit code of a process whose end the fork server did not live to see

# numpy would start threads when it is imported, which a fork cannot take along, and torch might ask the driver of a
# graphics card, which a forked process cannot go on with.
ONLY_IMPORTING = {"OPENBLAS_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}

# What the roles that compute have in common. They cost some two seconds to import.
MODULES = (
    "torch", "torch._dynamo", "microsfl.__main__", "microsfl.cli", "microsfl.services.split_server",
    "microsfl.services.fed_server", "microsfl.client.agent",
)  # fmt: skip


class Process(Protocol):
    """The part of `subprocess.Popen` that the launcher uses."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def stdout(self) -> IO[bytes] | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True)
class Job:
    """What a child is to be: `function` is "module:function"; `name` is what `ps` shows."""

    name: str
    function: str
    arguments: Sequence[str]
    environment: Mapping[str, str]


class Forker(Protocol):
    """Where a process can be forked; see `Forks.start`."""

    def start(self, job: Job, stderr: int) -> Process: ...


class Unforked(Exception):
    """There is no fork server, or it does not answer: start the process in the ordinary way."""


class Forks:
    """A fork server for as long as a `with` block lasts, where the platform has what it needs.

    It imports from the moment this is made; whoever asks for the first child waits until that is done. Should it be
    killed, its children go on.
    """

    def __init__(self, modules: Sequence[str] = MODULES) -> None:
        self._lock = threading.Lock()
        self._is_ready = False
        self._server: subprocess.Popen[bytes] | None = None
        if not can_fork():
            return
        self._control, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "microsfl.launch.fork_server", *modules],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**ONLY_IMPORTING, **child_environment()},
                process_group=0,
            )

    @property
    def pid(self) -> int | None:
        """The server's process id; None when there is none any more."""
        return self._server.pid if self._server is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._end()

    def start(self, job: Job, stderr: int) -> Forked:
        """Fork a child for `job`, in a process group of its own, with pipes as standard input and output.

        Raises:
            Unforked: when there is no server, or it does not answer in time; there is none any more then.
        """
        line, theirs = socket.socketpair()
        with theirs:
            self.lend(theirs)
        try:
            return instructed(line, job, stderr, FORK_S)
        except Unforked:
            self._give_up()
            raise

    def lend(self, theirs: socket.socket) -> None:
        """Fork a child that listens at this end of a line; whoever has the other instructs it, see `instructed`.

        Raises:
            Unforked: when there is no server, or it does not answer in time; there is none any more then.
        """
        try:
            with self._lock:
                self._ask(theirs)
        except OSError as error:
            self._give_up()
            raise Unforked(str(error)) from None

    def _give_up(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, theirs: socket.socket) -> None:
        if self._server is None:
            raise OSError("there is no fork server")
        if not self._is_ready:
            self._control.settimeout(READY_S)
            if not self._control.recv(1):
                raise OSError("the fork server ended before it was ready")
            self._is_ready = True
        self._control.settimeout(FORK_S)
        socket.send_fds(self._control, [b"f"], [theirs.fileno()])

    def _end(self) -> None:
        if self._server is not None:
            self._control.close()
            self._server.kill()
            self._server.wait()
            self._server = None


class Forked:
    """A child of the fork server; a `Process`. It ends when this object is gone, as its standard input then closes."""

    def __init__(self, line: socket.socket, pid: int, pidfd: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = os.fdopen(stdin, "wb", buffering=0)
        self.stdout = os.fdopen(stdout, "rb")
        self._line = line
        self._lock = threading.Lock()
        self._pidfd = pidfd
        weakref.finalize(self, os.close, self._pidfd)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        with self._lock:
            if self.returncode is None and _has_ended(self._pidfd, 0.0):
                try:
                    self.returncode = _number(self._line, STATUS_S)
                except (OSError, ValueError):
                    self.returncode = NOBODY_SAW
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: when it lives on.
        """
        _has_ended(self._pidfd, timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


def child_environment() -> dict[str, str]:
    """This process's environment without MICROSFL_*, which is not meant for all roles at once, and without AWS_*.

    What this process can import from its working directory or beside its script, a child can too.
    """
    ours = {name for name in os.environ if name.startswith(("MICROSFL_", "AWS_"))} - {HOME}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    places = [os.getcwd(), *sys.path[:1], *kept.get("PYTHONPATH", "").split(os.pathsep)]
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(place for place in places if place))}


def can_fork() -> bool:
    """Whether forking is safe here, and a process can be held by a descriptor: on Linux since 5.3.

    macOS's own libraries do not survive a fork, and Windows has none.
    """
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def instructed(line: socket.socket, job: Job, stderr: int, patience_s: float) -> Forked:
    """The child at the other end of the line, which is told what it is to be.

    Raises:
        Unforked: when there is none within that time. The line is closed then.
    """
    try:
        # The pid first: a child whose pid is not known here is told nothing, and ends.
        return _instruct(line, _number(line, patience_s), job, stderr)
    except (OSError, ValueError) as error:
        line.close()
        raise Unforked(str(error)) from None


def _instruct(line: socket.socket, pid: int, job: Job, stderr: int) -> Forked:
    """Tell the child what it is to be; the child gets the other ends of its pipes, and nobody else has them."""
    pidfd = os.pidfd_open(pid)  # whoever gets this pid later is not meant by it
    reads, writes = os.pipe(), os.pipe()
    child = Forked(line, pid, pidfd, reads[1], writes[0])
    try:
        text = json.dumps({**asdict(job), "directory": os.getcwd()}).encode()
        sent = socket.send_fds(line, [text], [reads[0], writes[1], stderr])
        line.sendall(text[sent:])
        line.shutdown(socket.SHUT_WR)
    finally:
        os.close(reads[0])
        os.close(writes[1])
    return child


def _number(line: socket.socket, timeout_s: float) -> int:
    """The next number that the server tells.

    Raises:
        OSError, ValueError: when none comes.
    """
    line.settimeout(timeout_s)
    text = b""
    while not text.endswith(b"\n"):
        part = line.recv(1)
        if not part:
            raise ValueError("the fork server is gone")
        text += part
    return int(text)


def _has_ended(pidfd: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))
