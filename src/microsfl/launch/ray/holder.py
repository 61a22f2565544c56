"""What an actor does: it holds one process of a role on the node where Ray put it, and ends with it.

The process is the same `python -m microsfl ROLE FLAGS` as everywhere. It holds the reading end of the actor's pipe, so
when Ray kills the actor, the process ends too; when the process ends, the actor does, and Ray starts it again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ... import __version__
from ...config import ClientSettings, FedServerSettings, ProcessSettings, SplitServerSettings
from ...errors import InvalidSetting, MicrosflError
from ...trust.files import write_private
from ..child import Child
from .fork_desk import ForksElsewhere

SETTINGS: dict[str, type[ProcessSettings]] = {
    "split-server": SplitServerSettings,
    "fed-server": FedServerSettings,
    "client": ClientSettings,
}
LOOK_S = 1.0  # how long an answer waits for something to tell
LAST_WORDS_S = 3.0  # within which the launcher has asked for the end of the log
LOG_BYTES = 1_000_000  # of an answer
FAILED = 1


@dataclass(frozen=True)
class Parcel:
    """All that a process needs on its node.

    settings: those that were set, by name. files: settings that name a file, with its content: the file is written on
    the node, where its owner alone can read it. secrets: variables of the process's environment alone. forks: socket of
    a `ForkDesk` on the same machine.
    """

    version: str
    role: str
    name: str
    settings: Mapping[str, object]
    files: Mapping[str, bytes] = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    forks: str | None = None


@dataclass(frozen=True)
class Said:
    """What the actor tells of its process.

    exit_code: None while it lives. is_final: it ended, and is not to be started again. log: the next part of it.
    """

    pid: int
    actor_pid: int
    up: bool
    address: str | None
    exit_code: int | None
    is_final: bool
    log: bytes = b""


class Holder:
    """The actor. Methods are called from several threads of its own at a time."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="microsfl-"))  # which nobody else can read
        self._child: Child | None = None
        self._is_to_end = False
        self._was_told = threading.Event()

    def node(self) -> str:
        """The address of the node that it is on."""
        import ray

        return str(ray.util.get_node_ip_address())

    def start(self, parcel: Parcel) -> Said:
        """Start the process, unless it is there already, and wait until it is ready or has ended.

        Raises:
            InvalidSetting: when this node has another version of microsfl.
        """
        if self._child is None:
            if parcel.version != __version__:
                raise InvalidSetting(
                    f"microsfl {__version__} is installed on the node {self.node()}, and {parcel.version} where the "
                    "run was started; install the same everywhere."
                )
            self._start(parcel)
        assert self._child is not None
        with suppress(MicrosflError):  # the launcher says what there is to say, from the log and the exit code
            self._child.wait_ready()
        return self._said()

    def follow(self, offset: int) -> Said:
        """What has been logged from a byte on; waits a little for the process's end.

        With the last of the log that there will be, the files on this node go, credential and keys among them.
        """
        child = self._child
        assert child is not None
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(LOOK_S)
        said, text = self._said(), b""
        with suppress(FileNotFoundError), child.log.open("rb") as log:
            log.seek(offset)
            text = log.read(LOG_BYTES)
        if said.exit_code is not None and len(text) < LOG_BYTES:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._was_told.set()
        return replace(said, log=text)

    def end(self) -> None:
        """Ask the process to end. The actor stays, to tell how it ended."""
        self._is_to_end = True
        if self._child is not None:
            self._child.process.terminate()

    def _start(self, parcel: Parcel) -> None:
        settings = dict(parcel.settings)
        for name, content in parcel.files.items():
            file = self._folder / name
            write_private(file, content)
            settings[name] = str(file)
        os.environ.update(parcel.environment)
        parsed = SETTINGS[parcel.role].parse(settings)
        forks = ForksElsewhere(parcel.forks) if parcel.forks is not None else None
        self._child = Child(parcel.role, parcel.name, parsed, self._folder / "log", parcel.secrets, forks)
        threading.Thread(target=self._end_with, args=(self._child,), name="end-with-process", daemon=True).start()

    def _end_with(self, child: Child) -> None:
        """Ray starts an actor again that ended, on a node that is there."""
        child.process.wait()
        self._was_told.wait(LAST_WORDS_S)
        if not self._is_final(child):
            os._exit(FAILED)

    def _said(self) -> Said:
        child = self._child
        assert child is not None
        code = child.process.poll()
        up = child.up_since is not None and code is None
        return Said(child.process.pid, os.getpid(), up, child.address, code, code is not None and self._is_final(child))

    def _is_final(self, child: Child) -> bool:
        return self._is_to_end or child.refused
