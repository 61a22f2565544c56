"""All roles on this machine over one folder, for whatever runs are created there, until they are told to end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import click

from ..config import ClientSettings, CoordinatorSettings, FedServerSettings, SplitServerSettings
from ..errors import InvalidSetting, StoreNotWritable
from ..process import announce
from ..sync import keys
from ..zoo.deal import client_ids
from .admission import LocalFederation
from .control import Control
from .federation import cores, spread
from .forks import Forks
from .login_link import LoginLink
from .members import FED_SERVER, Members
from .process_folder import ProcessFolder
from .processes import Processes
from .readable import counted
from .training import signals_unwind

LOOK_EVERY_S = 0.5  # how soon a restart is told


@dataclass(frozen=True)
class Options:
    """What `microsfl up` is asked for. allow_…: functions of the user's own that runs may name."""

    folder: Path
    port: int
    split: int
    clients: int
    allow_models: tuple[str, ...] = ()
    allow_datasets: tuple[str, ...] = ()


class StandingFolder(ProcessFolder):
    """Logs, stores and records that stay: whoever comes next goes on with them. One `microsfl up` has it at a time.

    Raises:
        StoreNotWritable: when it cannot be made.
        InvalidSetting: when another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self._held = (self.path / "in-use").open("a")
        except OSError as error:
            raise StoreNotWritable(f"The folder {path} cannot be made or written: {error.strerror}.") from None
        if not _lock(self._held):
            self._held.close()
            raise InvalidSetting(f"The folder {path} is in use by another `microsfl up`: name another with --folder.")

    def release(self) -> None:
        self._held.close()


class Standing:
    """The processes for as long as a `with` block lasts. Runs that are under way when it ends stay as they are: the
    next one on the same folder goes on with them.

    Raises, when it is entered:
        InputError: for a folder or a port that cannot be had.
        RunFailed: when a process ends before it is ready, with the end of its log.
    """

    coordinator: str  # URL, once it is entered

    def __init__(self, options: Options, forks: Forks | None = None) -> None:
        self.options = options
        self.processes = Processes(None, forks)
        self._local: LocalFederation | None = None

    def __enter__(self) -> Self:
        self.folder = StandingFolder(self.options.folder)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process."""
        self.processes.close()
        if self._local is not None:
            self._local.close()
        self.folder.release()

    def wait(self, say: Callable[[str], None]) -> None:
        """Say what is started again, for ever: a signal ends this."""
        told, never = 0, threading.Event()
        while not never.wait(LOOK_EVERY_S):
            self.processes.record()
            reports = self.processes.supervisor.reports[told:]
            told += len(reports)
            for report in reports:
                say(report)

    def _start(self) -> None:
        self.processes.begin(self.folder)
        local = self._local = LocalFederation("this-machine")
        groups = spread(client_ids(self.options.clients), cores())
        members = Members.of(self.options.split, groups, federated=True)
        members.join(local)
        coordinator = self.processes.spawn("coordinator", "coordinator", self._coordinator(local.write()))
        coordinator.wait_ready()
        self.coordinator = str(coordinator.address)
        local.begin(self.coordinator)
        members.start(self.processes, local, self._split_server, self._fed_server, self._client)

    def _coordinator(self, federation: Path) -> CoordinatorSettings:
        return CoordinatorSettings(
            port=self.options.port,
            records_url=self.folder.records_url(),
            federation=str(federation),
            allow_models=self.options.allow_models,
            allow_datasets=self.options.allow_datasets,
        )

    def _split_server(self, name: str, local: LocalFederation) -> SplitServerSettings:
        return SplitServerSettings(
            port=0,
            id=name,
            drain_s=0,
            coordinator=self.coordinator,
            credential=str(local.credential(name)),
            store_url=self.folder.store_url(keys.BODY),
            allow_models=self.options.allow_models,
        )

    def _fed_server(self, local: LocalFederation) -> FedServerSettings:
        return FedServerSettings(
            port=0,
            id=FED_SERVER,
            drain_s=0,
            coordinator=self.coordinator,
            credential=str(local.credential(FED_SERVER)),
            store_url=self.folder.store_url(keys.CLIENT),
            allow_models=self.options.allow_models,
        )

    def _client(self, ids: tuple[str, ...], credential: Path) -> ClientSettings:
        return ClientSettings(
            coordinator=self.coordinator,
            credential=str(credential),
            ids=ids,
            allow_models=self.options.allow_models,
            allow_datasets=self.options.allow_datasets,
        )


def up(options: Options, forks: Forks | None = None) -> None:
    """Start all roles and wait for Ctrl-C or SIGTERM, which is the end that was asked for: it is no failure."""
    with signals_unwind(), Standing(options, forks) as standing:
        announce("up", f"at {standing.coordinator}")
        servers, clients = counted(options.split, "split server"), counted(options.clients, "client")
        _say(f"{servers}, a fed server and {clients}; runs, stores and logs are in {options.folder}. Ctrl-C ends all.")
        _say(_how_to_look(standing.coordinator))
        with suppress(KeyboardInterrupt, SystemExit):
            standing.wait(_say)
        _say("ending the processes …")


def _how_to_look(coordinator: str) -> str:
    if sys.stderr.isatty():
        return f"This address logs a browser in, once: {LoginLink().of(Control(coordinator, ''))}"
    return f"`microsfl admin login-link --coordinator {coordinator}` prints an address that logs a browser in."


def _say(what: str) -> None:
    click.echo(what, err=True)


def _lock(file: IO[str]) -> bool:
    """Hold the file until this process ends; False when another one does."""
    try:
        import fcntl
    except ImportError:  # there is no such lock on this system; the coordinator's port is what is had once
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
