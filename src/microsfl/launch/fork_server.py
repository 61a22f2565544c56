"""A process that has imported what several roles need, and forks a child whenever it is asked to.

    python -m microsfl.launch.fork_server MODULE...

Its standard input is a Unix socket to the launcher; when that closes, it ends. It has one thread, no role's code has
run in it and no credentials ever reach it: what a child is to be, with its environment and its standard streams, the
child reads itself, from a socket of its own (docs/decisions/0009-fork-server.md).
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from ..process import importing

STREAMS = 3
PART_BYTES = 1 << 16

Json = dict[str, Any]


def main(modules: Sequence[str]) -> None:
    """Import `modules`, say that this is done, and fork until the launcher is gone.

    With a second thread, whoever started it, nothing is forked: a fork would copy only the locks that it holds.
    """
    before = dict(os.environ)
    with importing():
        for module in modules:
            import_module(module)
    if threads() != 1:
        return
    with socket.socket(fileno=os.dup(0)) as control:
        control.sendall(b"r")
        Server(control, {name: value for name, value in os.environ.items() if before.get(name) != value}).run()


def threads() -> int:
    """Threads of this process, Python's and others."""
    return len(os.listdir("/proc/self/task"))


class Server:
    """Forks on request, and tells how each child ended.

    `set_by_imports` are variables of the environment that the modules set when they were imported.
    """

    def __init__(self, control: socket.socket, set_by_imports: dict[str, str]) -> None:
        self.control = control
        self.set_by_imports = set_by_imports
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.children: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: pid, and where its end is told

    def run(self) -> None:
        while True:
            for fd, _ in self.poll.poll():
                if fd != self.control.fileno():
                    self._tell_end(fd)
                elif not self._fork():
                    return

    def _fork(self) -> bool:
        """Fork for one request; False when there is nobody any more who could ask for it."""
        _, fds, _, _ = socket.recv_fds(self.control, 1, 1)
        if not fds:
            return False
        line = socket.socket(fileno=fds[0])
        pid = os.fork()
        if not pid:
            self._become(line)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = pid, line
        self.poll.register(pidfd, select.POLLIN)
        _tell(line, pid)
        return True

    def _tell_end(self, pidfd: int) -> None:
        pid, line = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        with line:
            _tell(line, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def _become(self, line: socket.socket) -> NoReturn:
        """The child, from its first moment to its last: nothing of it returns into the server."""
        code = 1
        try:
            self.control.close()
            for pidfd, (_, other) in self.children.items():
                os.close(pidfd)
                other.close()
            os.setpgid(0, 0)
            instructions = read_instructions(line)
            if instructions is not None:
                self._run(instructions)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001 - whatever it is, it is the end of this process and of no other
            traceback.print_exc()
        finally:
            os._exit(code)

    def _run(self, instructions: Json) -> None:
        os.environ.clear()
        os.environ.update({**self.set_by_imports, **instructions["environment"]})
        os.chdir(instructions["directory"])
        Path("/proc/self/comm").write_text(instructions["name"][:15])  # what `ps` and `top` show
        sys.argv = ["microsfl", *instructions["arguments"]]
        reseed()
        module, function = instructions["function"].split(":")
        getattr(import_module(module), function)()


def read_instructions(line: socket.socket) -> Json | None:
    """What this child is to be, its standard streams in place; None when the launcher did not come to say it."""
    with line:
        text, fds, _, _ = socket.recv_fds(line, PART_BYTES, STREAMS)
        while part := line.recv(PART_BYTES):
            text += part
    if len(fds) != STREAMS:
        return None
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    return dict(json.loads(text))


def reseed() -> None:
    """Children must not draw the same numbers where nobody seeds; Python's own generator sees to that itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(random.SystemRandom().getrandbits(32))


def _tell(line: socket.socket, number: int) -> None:
    """A launcher that does not listen any more is none of our business."""
    try:
        line.send(b"%d\n" % number)
    except OSError:
        return


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # without waiting for a thread, or for torch to be taken apart
